//! The collection of package descriptions, in a service of this process.

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nearfield::service::{
    Algorithm, Context, Embedding, Expected, FieldKind, FieldSchema, Metric, Put, Quantization, Schema,
    Service, Value, VectorSchema, VectorType,
};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{corpus::Document, vectors::Vectors};

/// The collection's name.
pub(crate) const NAME: &str = "packages";
/// Writes of a batch each that are under way at once.
const WRITES: usize = 4;

/// Text in `content`, embedded into `embedding`: FLOAT32, cosine, HNSW with the article's
/// parameters.
pub(crate) fn schema(model: &embed::Model) -> Schema {
    let field = |name: &str, kind| FieldSchema { name: name.to_owned(), kind };
    let vector = VectorSchema {
        algorithm: Algorithm::Hnsw { m: 16, ef_construction: 200, ef_search: 80 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: model.dim(),
        metric: Metric::Cosine,
        embed: Some(Embedding { fields: vec!["content".to_owned()], model: model.name().to_owned() }),
    };
    Schema {
        prefixes: vec![format!("{NAME}:").into_bytes()],
        fields: vec![field("content", FieldKind::Text), field("embedding", FieldKind::Vector(vector))],
        ttl: None,
    }
}

/// Makes the collection and writes documents into it, `batch` in a write, with ready vectors or
/// to be embedded; returns once all are durable and in the graph.
pub(crate) fn fill(
    service: &Service,
    model: &embed::Model,
    documents: &[Document],
    vectors: Option<&Vectors>,
    batch: NonZero<usize>,
) -> Result<()> {
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let cx = Context::local();
        service.put_collection(&cx, NAME, schema(model), false).await?;
        let mut writes: JoinSet<Result<()>> = JoinSet::new();
        for (number, chunk) in documents.chunks(batch.get()).enumerate() {
            if writes.len() == WRITES {
                writes.join_next().await.context("a write is under way")???;
            }
            let first = number * batch.get();
            let puts = chunk
                .iter()
                .enumerate()
                .map(|(row, document)| put(document, vectors.map(|vectors| vectors.row(first + row))))
                .collect();
            let (service, cx) = (service.clone(), cx.clone());
            writes.spawn(async move {
                for result in service.put(&cx, NAME, puts).await? {
                    result?;
                }
                Ok(())
            });
        }
        while let Some(write) = writes.join_next().await {
            write??;
        }
        wait_for_graph(service, documents.len() as u64).await
    })
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
            "{} documents stand where {documents} were written",
            info.documents
        );
        if info.tail == 0 && info.vectors == documents {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(3600), "the graph does not catch up: {info:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
