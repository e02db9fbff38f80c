//! SciFact: whether what is computed faster ranks as well.

use ::embed::ComputeType;
use anyhow::Result;

use super::Engines;
use crate::{
    report::{Format, Report, Row},
    scifact::Dataset,
    setting::Setting,
    truth, vectors,
};

/// Measures and prints: nDCG@10 of exact search, all float32 first.
pub(super) fn run(engines: &Engines<'_>, setting: &Setting, format: Format) -> Result<()> {
    let model = engines.model;
    let dataset = Dataset::read(&setting.source.scifact())?;
    let texts: Vec<&str> = dataset.texts.iter().map(String::as_str).collect();
    let questions: Vec<&str> = dataset.questions.iter().map(String::as_str).collect();
    let cpu = setting.cpu();
    let exact = (ComputeType::F32, ComputeType::F32);
    let fast = (ComputeType::for_queries(cpu), ComputeType::for_documents(cpu));
    let mut report = Report::new(format, "embed scifact");
    let mut of_exact = f64::NAN;
    for (of_query, of_document) in [exact, fast, (ComputeType::Int8, ComputeType::Int8)] {
        eprintln!("SciFact: questions in {}, abstracts in {}", of_query.name(), of_document.name());
        let documents = match of_document {
            ComputeType::F32 => vectors::of_texts(&setting.cache_dir, model, &dataset.corpus, &texts)?.values,
            compute => vectors::embed_texts(model, &texts, compute),
        };
        let queries = vectors::embed_texts(model, &questions, of_query);
        let found = truth::exact(&documents, &queries, model.dim());
        let ndcg_at_10 = dataset.mean_ndcg(&found);
        if of_exact.is_nan() {
            of_exact = ndcg_at_10;
        }
        report.push(
            Row::new()
                .with("query_compute", of_query.name())
                .with("document_compute", of_document.name())
                .with("documents", texts.len())
                .with("queries", questions.len())
                .with_rounded("ndcg_at_10", ndcg_at_10, 4)
                .with_rounded("difference_to_f32", ndcg_at_10 - of_exact, 4),
        )?;
    }
    report.finish()
}
