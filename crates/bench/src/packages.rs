//! The collection of package descriptions, in an in-process service.

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nearfield::service::{
    Algorithm, Context, Embedding, Expected, FieldKind, FieldSchema, Leg, Metric, Paging, Put, Quantization,
    Schema, SearchRequest, SearchResponse, Service, Value, VectorSchema, VectorType,
};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    corpus::{self, Document},
    global_options::GlobalOptions,
    vectors::{self, Vectors},
};

/// The collection's name.
pub(crate) const NAME: &str = "packages";
/// Batches written concurrently.
const CONCURRENT_WRITES: usize = 4;

/// The article's HNSW parameters.
pub(crate) const HNSW: Algorithm = Algorithm::Hnsw { m: 16, ef_construction: 200, ef_search: 80 };

/// Documents with their vectors, and query vectors.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) documents: Vec<Document>,
    /// One per document, in the same order.
    pub(crate) vectors: Vectors,
    pub(crate) queries: Vectors,
}

impl Corpus {
    /// The first `limit` packages and the first `queries` queries.
    pub(crate) fn read(global: &GlobalOptions, limit: usize, queries: usize) -> Result<Corpus> {
        let model = global.model()?;
        let source = global.data.packages()?;
        let documents = corpus::documents(&source, limit)?;
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        let vectors = vectors::of_texts(&global.cache_dir, &model, &source, &texts)?;
        let source = global.data.package_queries()?;
        let all = corpus::queries(&source)?;
        let texts: Vec<&str> = all.iter().take(queries).map(String::as_str).collect();
        let queries = vectors::of_texts(&global.cache_dir, &model, &source, &texts)?;
        Ok(Corpus { documents, vectors, queries })
    }
}

/// A search for the `k` documents nearest to a vector, returning their text.
pub(crate) fn nearest(collection: &str, vector: &[f32], k: usize, ef: Option<usize>) -> SearchRequest {
    SearchRequest {
        collection: Some(collection.to_owned()),
        legs: vec![Leg::Vector(vector.to_vec())],
        paging: Paging { offset: 0, k },
        ef_search: ef,
        fields: Some(vec!["content".to_owned()]),
        ..SearchRequest::text("", k)
    }
}

/// The document numbers of the hits, best first.
pub(crate) fn ids(response: &SearchResponse) -> Result<Vec<u32>> {
    response
        .hits
        .iter()
        .map(|hit| hit.id.parse().context("the id of a hit is not a document number"))
        .collect()
}

/// A schema under the prefix `{name}:` with text in `content` and a vector in `embedding` (FLOAT32, cosine),
/// computed by `model` if one is given.
pub(crate) fn schema(name: &str, algorithm: Algorithm, dim: usize, model: Option<&str>) -> Schema {
    let field = |name: &str, kind| FieldSchema { name: name.to_owned(), kind };
    let vector = VectorSchema {
        algorithm,
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim,
        metric: Metric::Cosine,
        embed: model.map(|model| Embedding { fields: vec!["content".to_owned()], model: model.to_owned() }),
    };
    Schema {
        prefixes: vec![format!("{name}:").into_bytes()],
        fields: vec![field("content", FieldKind::Text), field("embedding", FieldKind::Vector(vector))],
        ttl: None,
    }
}

/// The schema of the collection [`NAME`].
pub(crate) fn own_schema(model: &embed::Model, quantization: Quantization) -> Schema {
    let mut schema = schema(NAME, HNSW, model.dim(), Some(model.name()));
    quantize(&mut schema, quantization);
    schema
}

/// Sets the quantization of the vector fields.
pub(crate) fn quantize(schema: &mut Schema, quantization: Quantization) {
    for field in &mut schema.fields {
        if let FieldKind::Vector(vector) = &mut field.kind {
            vector.quantization = quantization;
        }
    }
}

/// Creates the collection [`NAME`] and writes documents into it, `batch` per write, with `vectors` or to be
/// embedded; returns once all are durable and in the graph.
pub(crate) fn fill(
    service: &Service,
    schema: Schema,
    documents: &[Document],
    vectors: Option<&Vectors>,
    batch: NonZero<usize>,
) -> Result<()> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let cx = Context::local();
        service.put_collection(&cx, NAME, schema, false).await?;
        write(service, NAME, documents, vectors.map(|vectors| (vectors, 0)), batch).await?;
        wait_for_graph(service, documents.len() as u64).await
    })
}

/// Writes documents into a collection, `batch` per write, to be embedded or with vectors (given with the row
/// of the first document).
pub(crate) async fn write(
    service: &Service,
    collection: &'static str,
    documents: &[Document],
    vectors: Option<(&Vectors, usize)>,
    batch: NonZero<usize>,
) -> Result<()> {
    let mut writes: JoinSet<Result<()>> = JoinSet::new();
    for (number, chunk) in documents.chunks(batch.get()).enumerate() {
        if writes.len() == CONCURRENT_WRITES {
            writes.join_next().await.context("no write is in progress")???;
        }
        let first = number * batch.get();
        let puts = chunk
            .iter()
            .enumerate()
            .map(|(row, document)| {
                put(document, vectors.map(|(vectors, offset)| vectors.row(offset + first + row)))
            })
            .collect();
        let service = service.clone();
        writes.spawn(async move {
            for result in service.put(&Context::local(), collection, puts).await? {
                result?;
            }
            Ok(())
        });
    }
    while let Some(write) = writes.join_next().await {
        write??;
    }
    Ok(())
}

fn put(document: &Document, vector: Option<&[f32]>) -> Put {
    let mut fields = vec![("content".to_owned(), Value::Bytes(document.text.clone().into_bytes()))];
    fields.extend(vector.map(|vector| ("embedding".to_owned(), Value::Vector(vector.to_vec()))));
    Put { id: document.id.to_string(), fields, ttl: None, expected: Expected::Any }
}

async fn wait_for_graph(service: &Service, documents: u64) -> Result<()> {
    let started = Instant::now();
    loop {
        let info = service.collection(&Context::local(), NAME).await?;
        ensure!(
            info.documents == documents,
            "the collection has {} documents, expected {documents}",
            info.documents
        );
        if info.tail == 0 && info.vectors == documents {
            return Ok(());
        }
        ensure!(
            started.elapsed() < Duration::from_secs(3600),
            "the graph has not caught up after an hour: {info:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
