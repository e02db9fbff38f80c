//! `embed`: speed and quality of embedding, compared with onnxruntime with the same weights on the same texts.

mod bulk;
mod engine;
mod onnxruntime;
mod quality;
mod scifact;
mod speed;

use anyhow::Result;

use crate::{global_options::GlobalOptions, machine::CorePin, peer::Peers, report::Format};
use engine::{Engine, Engines};
use onnxruntime::Onnxruntime;
use speed::BatchShape;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum EmbedPart {
    /// Microseconds per text by number of tokens and batch size.
    Speed,
    /// Texts per second for a corpus.
    Bulk,
    /// Similarity of the vectors to those computed in float32.
    Quality,
    /// nDCG@10 on SciFact.
    Scifact,
}

/// Arguments of `embed`.
#[derive(Debug, clap::Args)]
pub(crate) struct EmbedArguments {
    /// Parts to run
    #[arg(long, value_delimiter = ',', default_value = "speed,bulk,quality,scifact")]
    part: Vec<EmbedPart>,
    /// Tokens per text, special tokens included, and texts per batch
    #[arg(
        long,
        value_name = "TOKENSxBATCH",
        value_delimiter = ',',
        default_value = "8x1,12x1,20x1,64x1,128x1,256x1,12x32"
    )]
    point: Vec<BatchShape>,
    /// Rounds over all points and engines; medians are printed
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds per engine and point in each round
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Packages embedded in bulk
    #[arg(long, value_name = "N", default_value_t = 2000)]
    bulk_texts: usize,
    /// Texts per batch in bulk
    #[arg(long, value_name = "N", default_value_t = 32)]
    bulk_batch: usize,
    /// Packages whose vectors are compared with those in float32
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    cosine_texts: usize,
    /// Packages to search for the nearest of each query
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    overlap_documents: usize,
    /// Queries whose nearest packages are compared
    #[arg(long, value_name = "N", default_value_t = 2000)]
    overlap_queries: usize,
    /// Core of the embedding thread, and of the peer while that waits
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Whether to measure onnxruntime as well
    #[arg(long, value_enum, default_value = "all")]
    peers: Peers,
}

/// Measures and prints.
pub(crate) fn run(arguments: &EmbedArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let model = global.model()?;
    std::fs::create_dir_all(&global.cache_dir)?;
    let peer = match arguments.peers {
        Peers::None => None,
        Peers::All => Some(Onnxruntime::start(&model, global, arguments.core)?),
    };
    let mut engines = Engines::new(&model, peer);
    if arguments.part.contains(&EmbedPart::Speed) {
        let _pin = CorePin::to_core(arguments.core)?;
        speed::run(&mut engines, arguments, global, format)?;
    }
    if arguments.part.contains(&EmbedPart::Bulk) {
        let _pin = CorePin::to_core(arguments.core)?;
        bulk::run(&mut engines, arguments, global, format)?;
    }
    if arguments.part.contains(&EmbedPart::Quality) {
        quality::run(&mut engines, arguments, global, format)?;
    }
    if arguments.part.contains(&EmbedPart::Scifact) {
        scifact::run(&engines, global, format)?;
    }
    Ok(())
}
