//! `embed`: what a text costs, by length and batch.

use std::{hint::black_box, time::Instant};

use ::embed::{Model, Tokens};
use anyhow::{Result, ensure};

use crate::{
    corpus,
    machine::Pinned,
    report::{Format, Report, Row},
    sample::{Sample, median},
    setting::Setting,
};

/// Arguments of `embed`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Lengths in tokens, special tokens included
    #[arg(long, value_delimiter = ',', default_value = "8,12,20,64,128,256")]
    tokens: Vec<usize>,
    /// Texts in one forward pass
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Rounds over all lengths and batches; the median is printed
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds a length and batch are measured in each round
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Core the one thread is held to
    #[arg(long, default_value_t = 0)]
    core: usize,
}

/// Texts of one length and batch, and what was measured of them.
struct Case {
    tokens: usize,
    batches: Vec<Vec<Tokens>>,
    us_per_text: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let model = setting.model()?;
    let _pinned = Pinned::to(arguments.core)?;
    let ids = word_piece_ids(&model, setting)?;
    let mut cases = Vec::new();
    for &tokens in &arguments.tokens {
        ensure!(
            (3..=model.tokens_max()).contains(&tokens),
            "--tokens {tokens}: a text has 3 to {} tokens",
            model.tokens_max()
        );
        for &batch in &arguments.batch {
            cases.push(Case {
                tokens,
                batches: batches(&model, &ids, tokens, batch),
                us_per_text: Vec::new(),
            });
        }
    }
    for _ in 0..arguments.runs {
        for case in &mut cases {
            case.us_per_text.push(measure(&model, &case.batches, arguments.seconds));
        }
    }
    let mut report = Report::new(format, "embed");
    for case in &cases {
        let us_per_text = median(&case.us_per_text);
        let spread = Sample::new(case.us_per_text.clone());
        report.push(
            Row::new()
                .with("model", model.name())
                .with("compute", "f32")
                .with("level", setting.cpu().level().name())
                .with("threads", 1)
                .with("tokens", case.tokens)
                .with("batch", case.batches[0].len())
                .with("runs", arguments.runs)
                .with_rounded("us_per_text", us_per_text, 1)
                .with_rounded("us_min", spread.quantile(0.0), 1)
                .with_rounded("us_max", spread.max(), 1)
                .with_rounded("texts_per_s", 1e6 / us_per_text, 1),
        )?;
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

/// A few batches of different texts, each of exactly `tokens` tokens.
fn batches(model: &Model, ids: &[u32], tokens: usize, batch: usize) -> Vec<Vec<Tokens>> {
    let empty = model.tokenize("").ids;
    let (first, last) = (empty[0], empty[empty.len() - 1]);
    let mut stream = ids.iter().copied().cycle();
    (0..4)
        .map(|_| {
            (0..batch)
                .map(|_| {
                    let mut text = vec![first];
                    text.extend(stream.by_ref().take(tokens - 2));
                    text.push(last);
                    Tokens { ids: text, truncated: false }
                })
                .collect()
        })
        .collect()
}

/// Median microseconds a text over at least three passes and `seconds`.
fn measure(model: &Model, batches: &[Vec<Tokens>], seconds: f64) -> f64 {
    black_box(model.embed(&batches[0]));
    let mut times = Vec::new();
    let started = Instant::now();
    for batch in batches.iter().cycle() {
        let begun = Instant::now();
        black_box(model.embed(black_box(batch)));
        times.push(begun.elapsed().as_secs_f64() * 1e6 / batch.len() as f64);
        if times.len() >= 3 && started.elapsed().as_secs_f64() >= seconds {
            break;
        }
    }
    median(&times)
}
