//! What a text costs, by its length and how many are embedded at once.

use std::str::FromStr;

use ::embed::{Model, Tokens};
use anyhow::{Context, Result, ensure};

use super::{Arguments, Engines, engine::ratio, onnxruntime::TokensFile};
use crate::{
    corpus,
    report::{Format, Report, Row},
    sample::{Sample, median},
    setting::Setting,
};

/// Batches of different texts at each point.
const BATCHES: usize = 4;

/// A length and a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    tokens: usize,
    batch: usize,
}

impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Point> {
        let (tokens, batch) = text.split_once('x').context("a point is TOKENSxBATCH, such as 12x32")?;
        let point = Point {
            tokens: tokens.parse().with_context(|| format!("{tokens} is no number of tokens"))?,
            batch: batch.parse().with_context(|| format!("{batch} is no number of texts"))?,
        };
        ensure!(point.tokens >= 3, "a text has 3 tokens at least, not {tokens}");
        ensure!(point.batch >= 1, "a batch has 1 text at least");
        Ok(point)
    }
}

/// Measures and prints.
pub(super) fn run(
    engines: &mut Engines<'_>,
    arguments: &Arguments,
    setting: &Setting,
    format: Format,
) -> Result<()> {
    let ids = word_piece_ids(engines.model, setting)?;
    let all = engines.all.clone();
    let texts: Vec<TokensFile> = arguments
        .point
        .iter()
        .map(|point| TokensFile::new(texts(engines.model, &ids, *point)?, point.batch, setting))
        .collect::<Result<_>>()?;
    let mut times = vec![vec![Vec::new(); all.len()]; texts.len()];
    for run in 0..arguments.runs {
        for (texts, times) in texts.iter().zip(&mut times) {
            // Who goes first changes from round to round.
            for turn in 0..all.len() {
                let place = (run + turn) % all.len();
                times[place].push(engines.measure(all[place], texts, arguments.seconds)?);
            }
        }
        eprintln!("round {} of {} done", run + 1, arguments.runs);
    }
    let mut report = Report::new(format, "embed");
    for (point, times) in arguments.point.iter().zip(&times) {
        let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
        for (place, engine) in all.iter().enumerate() {
            let us_per_text = medians[place];
            let spread = Sample::new(times[place].clone());
            report.push(
                Row::new()
                    .with("engine", engines.name(*engine))
                    .with("model", engines.model.name())
                    .with("level", setting.cpu().level().name())
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

/// Word pieces of real texts in a row, without the special tokens around each text.
fn word_piece_ids(model: &Model, setting: &Setting) -> Result<Vec<u32>> {
    let documents = corpus::documents(&setting.source.packages(), 500)?;
    Ok(documents
        .iter()
        .flat_map(|document| {
            let ids = model.tokenize(&document.text).ids;
            ids[1..ids.len() - 1].to_vec()
        })
        .collect())
}

/// A few batches of different texts, each of exactly as many tokens.
fn texts(model: &Model, ids: &[u32], point: Point) -> Result<Vec<Tokens>> {
    ensure!(
        point.tokens <= model.tokens_max(),
        "--point {}x{}: a text has {} tokens at most",
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
    fn a_point_is_tokens_and_batch() {
        assert_eq!("12x32".parse::<Point>().unwrap(), Point { tokens: 12, batch: 32 });
        for wrong in ["12", "2x1", "12x0", "x", "12x-1"] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }
}
