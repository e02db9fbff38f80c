//! SciFact: ranking quality by arithmetic.

use ::embed::ComputeType;
use anyhow::Result;

use super::Engines;
use crate::{
    global_options::GlobalOptions,
    ground_truth,
    report::{Format, Report, Row},
    scifact::Dataset,
    vectors,
};

/// Measures and prints nDCG@10 of exact search, float32 first.
pub(super) fn run(engines: &Engines<'_>, global: &GlobalOptions, format: Format) -> Result<()> {
    let model = engines.model;
    let dataset = Dataset::load(&global.data.scifact()?)?;
    let texts: Vec<&str> = dataset.texts.iter().map(String::as_str).collect();
    let claims: Vec<&str> = dataset.queries.iter().map(String::as_str).collect();
    let cpu = global.cpu();
    let float32 = (ComputeType::F32, ComputeType::F32);
    let default = (ComputeType::for_queries(cpu), ComputeType::for_documents(cpu));
    let mut report = Report::new(format, "embed scifact");
    let mut f32_ndcg = f64::NAN;
    for (query_compute, document_compute) in [float32, default, (ComputeType::Int8, ComputeType::Int8)] {
        eprintln!("SciFact: claims in {}, abstracts in {}", query_compute.name(), document_compute.name());
        let documents = match document_compute {
            ComputeType::F32 => vectors::of_texts(&global.cache_dir, model, &dataset.corpus, &texts)?.values,
            compute => vectors::embed_texts(model, &texts, compute),
        };
        let queries = vectors::embed_texts(model, &claims, query_compute);
        let found = ground_truth::nearest(&documents, &queries, model.dim());
        let ndcg_at_10 = dataset.mean_ndcg(&found);
        if f32_ndcg.is_nan() {
            f32_ndcg = ndcg_at_10;
        }
        report.push(
            Row::new()
                .with("query_compute", query_compute.name())
                .with("document_compute", document_compute.name())
                .with("documents", texts.len())
                .with("queries", claims.len())
                .with_rounded("ndcg_at_10", ndcg_at_10, 4)
                .with_rounded("difference_to_f32", ndcg_at_10 - f32_ndcg, 4),
        )?;
    }
    report.finish()
}
