//! Time per text, by length and batch size.

use std::str::FromStr;

use ::embed::{Model, Tokens};
use anyhow::{Context, Result, ensure};

use super::{EmbedArguments, Engines, engine::ratio, onnxruntime::TokensFile};
use crate::{
    corpus,
    global_options::GlobalOptions,
    report::{Format, Report, Row},
    sample::{Sample, median},
};

/// Different batches per point.
const BATCHES: usize = 4;

/// A text length and a batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchShape {
    tokens: usize,
    batch: usize,
}

impl FromStr for BatchShape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<BatchShape> {
        let (tokens, batch) = text.split_once('x').context("expected TOKENSxBATCH, such as 12x32")?;
        let point = BatchShape {
            tokens: tokens
                .parse()
                .with_context(|| format!("the number of tokens must be a whole number, not {tokens:?}"))?,
            batch: batch
                .parse()
                .with_context(|| format!("the batch size must be a whole number, not {batch:?}"))?,
        };
        ensure!(point.tokens >= 3, "a text has at least 3 tokens, not {tokens}");
        ensure!(point.batch >= 1, "the batch size must be at least 1");
        Ok(point)
    }
}

/// Measures and prints.
pub(super) fn run(
    engines: &mut Engines<'_>,
    arguments: &EmbedArguments,
    global: &GlobalOptions,
    format: Format,
) -> Result<()> {
    let ids = word_piece_ids(engines.model, global)?;
    let all = engines.all.clone();
    let texts: Vec<TokensFile> = arguments
        .point
        .iter()
        .map(|point| TokensFile::new(texts(engines.model, &ids, *point)?, point.batch, global))
        .collect::<Result<_>>()?;
    let mut times = vec![vec![Vec::new(); all.len()]; texts.len()];
    for run in 0..arguments.runs {
        for (texts, times) in texts.iter().zip(&mut times) {
            // The first engine changes from round to round.
            for offset in 0..all.len() {
                let position = (run + offset) % all.len();
                times[position].push(engines.measure(all[position], texts, arguments.seconds)?);
            }
        }
        eprintln!("round {} of {} done", run + 1, arguments.runs);
    }
    let mut report = Report::new(format, "embed");
    for (point, times) in arguments.point.iter().zip(&times) {
        let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
        for (position, engine) in all.iter().enumerate() {
            let us_per_text = medians[position];
            let spread = Sample::new(times[position].clone());
            report.push(
                Row::new()
                    .with("engine", engines.name(*engine))
                    .with("model", engines.model.name())
                    .with("level", global.cpu().level().name())
                    .with("threads", 1)
                    .with("runs", arguments.runs)
                    .with("compute", engine.compute())
                    .with("tokens", point.tokens)
                    .with("batch", point.batch)
                    .with_rounded("us_per_text", us_per_text, 1)
                    .with_rounded("us_min", spread.quantile(0.0), 1)
                    .with_rounded("us_max", spread.max(), 1)
                    .with_rounded("ratio_to_ort_f32", ratio(&all, &medians, "f32", us_per_text), 2)
                    .with_rounded("ratio_to_ort_int8", ratio(&all, &medians, "int8", us_per_text), 2),
            )?;
        }
    }
    report.finish()
}

/// The concatenated word pieces of real texts, without special tokens.
fn word_piece_ids(model: &Model, global: &GlobalOptions) -> Result<Vec<u32>> {
    let documents = corpus::documents(&global.data.packages()?, 500)?;
    Ok(documents
        .iter()
        .flat_map(|document| {
            let ids = model.tokenize(&document.text).ids;
            ids[1..ids.len() - 1].to_vec()
        })
        .collect())
}

/// Batches of different texts of exactly the given number of tokens.
fn texts(model: &Model, ids: &[u32], point: BatchShape) -> Result<Vec<Tokens>> {
    ensure!(
        point.tokens <= model.tokens_max(),
        "--point {}x{}: the model's limit is {} tokens per text",
        point.tokens,
        point.batch,
        model.tokens_max()
    );
    let empty = model.tokenize("").ids;
    let (first, last) = (empty[0], empty[empty.len() - 1]);
    let mut stream = ids.iter().copied().cycle();
    Ok((0..BATCHES * point.batch)
        .map(|_| {
            let mut ids = vec![first];
            ids.extend(stream.by_ref().take(point.tokens - 2));
            ids.push(last);
            Tokens { ids, truncated: false }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_point_of_tokens_and_batch_size() {
        assert_eq!("12x32".parse::<BatchShape>().unwrap(), BatchShape { tokens: 12, batch: 32 });
        for wrong in ["12", "2x1", "12x0", "x", "12x-1"] {
            assert!(wrong.parse::<BatchShape>().is_err(), "{wrong}");
        }
    }
}
