//! Texts per second for a corpus, embedding only.

use anyhow::Result;

use super::{EmbedArguments, Engines, engine::ratio, onnxruntime::TokensFile};
use crate::{
    corpus,
    global_options::GlobalOptions,
    report::{Format, Report, Row},
    sample::median,
};

/// Measures and prints.
pub(super) fn run(
    engines: &mut Engines<'_>,
    arguments: &EmbedArguments,
    global: &GlobalOptions,
    format: Format,
) -> Result<()> {
    let documents = corpus::documents(&global.data.packages()?, arguments.bulk_texts)?;
    let tokens: Vec<_> = documents.iter().map(|document| engines.model.tokenize(&document.text)).collect();
    let count = tokens.len() as f64;
    let tokens_mean = tokens.iter().map(|text| text.ids.len()).sum::<usize>() as f64 / count;
    let texts = TokensFile::new(tokens, arguments.bulk_batch, global)?;
    let all = engines.all.clone();
    let mut seconds = vec![Vec::new(); all.len()];
    for run in 0..arguments.runs.min(3) {
        for offset in 0..all.len() {
            let position = (run + offset) % all.len();
            seconds[position].push(engines.bulk(all[position], &texts)?);
        }
        eprintln!("round {} of bulk embedding done", run + 1);
    }
    let medians: Vec<f64> = seconds.iter().map(|seconds| median(seconds)).collect();
    let mut report = Report::new(format, "embed bulk");
    for (engine, &seconds) in all.iter().zip(&medians) {
        report.push(
            Row::new()
                .with("engine", engines.name(*engine))
                .with("compute", engine.compute())
                .with("texts", documents.len())
                .with_rounded("tokens_mean", tokens_mean, 1)
                .with("batch", arguments.bulk_batch)
                .with("threads", 1)
                .with_rounded("cpu_s", seconds, 2)
                .with_rounded("texts_per_s", count / seconds, 1)
                .with_rounded("ratio_to_ort_f32", ratio(&all, &medians, "f32", seconds), 2)
                .with_rounded("ratio_to_ort_int8", ratio(&all, &medians, "int8", seconds), 2),
        )?;
    }
    report.finish()
}
