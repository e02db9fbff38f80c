//! The default schema: articles with a title and content, as in a typical knowledge base.

use crate::{
    Algorithm, Embedding, FieldKind, FieldSchema, Metric, Quantization, Schema, VectorSchema, VectorType,
    limits,
};

/// The default model.
pub const MODEL: &str = "all-MiniLM-L6-v2";

/// Dimension of the vectors of [`MODEL`].
const DIM: usize = 384;

/// The schema of a collection of articles: `title` and `content` as TEXT, `tags` as comma-separated
/// TAG, `numbers` as NUMERIC, and the VECTOR `embedding` that [`MODEL`] computes from title and
/// content: HNSW with M 16, ef_construction 200 and ef_search 80, FLOAT32, cosine. `prefix` is the
/// key prefix.
pub fn article_schema(prefix: &str, tags: &[String], numbers: &[String]) -> Schema {
    let text = |name: &str| FieldSchema { name: name.to_owned(), kind: FieldKind::Text };
    let tag = |name: &String| FieldSchema {
        name: name.clone(),
        kind: FieldKind::Tag { separator: b',', case_sensitive: false },
    };
    let number = |name: &String| FieldSchema { name: name.clone(), kind: FieldKind::Numeric };
    let mut fields = vec![text("title"), text("content")];
    fields.extend(tags.iter().map(tag));
    fields.extend(numbers.iter().map(number));
    fields.push(FieldSchema { name: "embedding".to_owned(), kind: FieldKind::Vector(embedding()) });
    Schema { prefixes: vec![prefix.as_bytes().to_vec()], fields, ttl: None }
}

fn embedding() -> VectorSchema {
    VectorSchema {
        algorithm: Algorithm::Hnsw {
            m: limits::M_DEFAULT,
            ef_construction: limits::EF_CONSTRUCTION_DEFAULT,
            ef_search: limits::EF_SEARCH_DEFAULT,
        },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: DIM,
        metric: Metric::Cosine,
        embed: Some(Embedding {
            fields: vec!["title".to_owned(), "content".to_owned()],
            model: MODEL.to_owned(),
        }),
    }
}
