//! `embed`: what a text costs and what a vector is worth, beside onnxruntime with the same weights
//! on the same texts.

mod bulk;
mod engine;
mod onnxruntime;
mod quality;
mod scifact;
mod speed;

use anyhow::Result;

use crate::{machine::Pinned, report::Format, setting::Setting};
use engine::{Engine, Engines};
use onnxruntime::Onnxruntime;
use speed::Point;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Microseconds a text by tokens and batch.
    Speed,
    /// Texts a second of a corpus.
    Bulk,
    /// How near the vectors are to those in float32.
    Quality,
    /// nDCG@10 on SciFact.
    Scifact,
}

/// Arguments of `embed`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these parts
    #[arg(long, value_delimiter = ',', default_value = "speed,bulk,quality,scifact")]
    part: Vec<Part>,
    /// Tokens a text, special tokens included, and texts a batch
    #[arg(
        long,
        value_name = "TOKENSxBATCH",
        value_delimiter = ',',
        default_value = "8x1,12x1,20x1,64x1,128x1,256x1,12x32"
    )]
    point: Vec<Point>,
    /// Rounds over all points and engines; the median is printed
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds an engine is measured at a point in each round
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Packages embedded in bulk
    #[arg(long, value_name = "N", default_value_t = 2000)]
    bulk_texts: usize,
    /// Texts a batch in bulk
    #[arg(long, value_name = "N", default_value_t = 32)]
    bulk_batch: usize,
    /// Packages whose vectors are compared with those in float32
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    cosine_texts: usize,
    /// Packages among which the nearest of each query are found
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    overlap_documents: usize,
    /// Queries whose nearest packages are compared
    #[arg(long, value_name = "N", default_value_t = 2000)]
    overlap_queries: usize,
    /// Core the one thread is held to, and the peer while ours waits
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Leave onnxruntime out
    #[arg(long)]
    no_peer: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let model = setting.model()?;
    let peer = match arguments.no_peer {
        true => None,
        false => Some(Onnxruntime::start(&model, setting, arguments.core)?),
    };
    let mut engines = Engines::new(&model, peer);
    if arguments.part.contains(&Part::Speed) {
        let _pinned = Pinned::to(arguments.core)?;
        speed::run(&mut engines, arguments, setting, format)?;
    }
    if arguments.part.contains(&Part::Bulk) {
        let _pinned = Pinned::to(arguments.core)?;
        bulk::run(&mut engines, arguments, setting, format)?;
    }
    if arguments.part.contains(&Part::Quality) {
        quality::run(&mut engines, arguments, setting, format)?;
    }
    if arguments.part.contains(&Part::Scifact) {
        scifact::run(&engines, setting, format)?;
    }
    Ok(())
}
