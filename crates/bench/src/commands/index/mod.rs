//! `index`: the index by itself, beside other libraries on the same vectors in the same run.

mod article;
mod churn;
mod contender;
mod curve;
mod ef;
mod growth;
mod library;
mod lineup;
mod live;
mod ours;
mod questions;
mod reloading;
mod round;
mod targets;
mod tuning;
mod turns;

use std::path::PathBuf;

use ::index::{Quantization, VectorType};
use anyhow::{Result, ensure};

use crate::{report::Format, setting::Setting};
use library::Library;

pub(crate) use ours::{build, search};
pub(crate) use questions::{Questions, packages};
pub(crate) use round::{Built, Round};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Queries a second, times and memory at recalls of .90, .95, .99 and .995, beside the libraries.
    Targets,
    /// Recall and queries a second by ef_search, beside the libraries.
    Ef,
    /// Sections 8.2 and 6.4 of the article: M, ef_construction, ef_search; types and quantization.
    Article,
    /// Build time, memory and rate by number of vectors.
    Growth,
    /// Searching while writing, building on two cores, churn, snapshots.
    Live,
}

/// Arguments of `index`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these parts
    #[arg(long, value_delimiter = ',', default_value = "targets")]
    part: Vec<Part>,
    /// Use the first so many documents only
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Use the first so many queries only; every second one tunes, the others are reported (`targets`, `growth`)
    #[arg(long, value_name = "N", default_value_t = 5000)]
    queries: usize,
    /// Recalls at 10 to compare at (`targets`)
    #[arg(long, value_delimiter = ',', default_value = "0.9,0.95,0.99,0.995")]
    target: Vec<f64>,
    /// Breadths of search (`ef`, `article`)
    #[arg(long, value_delimiter = ',', default_value = "10,20,40,50,80,120,200,400")]
    ef: Vec<usize>,
    /// Links a node
    #[arg(long, default_value_t = 16)]
    m: usize,
    /// Breadth while building
    #[arg(long, default_value_t = 200)]
    ef_construction: usize,
    /// Types of vectors: FLOAT32, FLOAT16, BFLOAT16
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = vector_type, default_value = "FLOAT32")]
    vector_type: Vec<VectorType>,
    /// How the index holds them: none, int8, int4
    #[arg(long, value_delimiter = ',', value_parser = quantization, default_value = "none,int8,int4")]
    quantization: Vec<Quantization>,
    /// Rounds over all points, engines taking turns; the medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Core ours and the peers are held to, in turn
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Core of what goes on beside the searches (`live`)
    #[arg(long, default_value_t = 0)]
    other_core: usize,
    /// Libraries to compare with (`targets`, `ef`)
    #[arg(long, value_delimiter = ',', default_value = "hnswlib,faiss,usearch,symphonyqg")]
    peers: Vec<Library>,
    /// Compare with no library
    #[arg(long, conflicts_with = "peers")]
    no_peer: bool,
    /// Numbers of vectors (`growth`)
    #[arg(long, value_delimiter = ',', default_value = "10000,50000,250000")]
    sizes: Vec<usize>,
    /// JSON lines with a `text` each, to grow by after the packages; embedded once (`growth`)
    #[arg(long, value_name = "FILE")]
    more: Vec<PathBuf>,
    /// Times half of the collection is deleted and inserted again (`live`)
    #[arg(long, default_value_t = 10)]
    churns: usize,
    /// Draw what `targets` or `growth` measured
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

impl Arguments {
    fn check(&self) -> Result<()> {
        ensure!(self.queries >= 2, "--queries must be at least 2: one half tunes, the other is reported");
        ensure!(self.runs > 0, "--runs must be at least 1");
        ensure!(
            self.target.iter().all(|target| (0.0..1.0).contains(target)),
            "--target takes recalls from 0 to below 1"
        );
        let drawn = self.part.iter().filter(|part| matches!(part, Part::Targets | Part::Growth)).count();
        ensure!(self.plot.is_none() || drawn == 1, "--plot draws one of the parts targets and growth");
        Ok(())
    }

    /// The libraries ours is measured beside.
    fn libraries(&self) -> &[Library] {
        if self.no_peer { &[] } else { &self.peers }
    }
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    arguments.check()?;
    for part in &arguments.part {
        match part {
            Part::Targets => targets::run(arguments, setting, format)?,
            Part::Ef => ef::run(arguments, setting, format)?,
            Part::Article => article::run(arguments, setting, format)?,
            Part::Growth => growth::run(arguments, setting, format)?,
            Part::Live => live::run(arguments, setting, format)?,
        }
    }
    Ok(())
}

/// Names of types as the API has them.
const TYPES: [(&str, VectorType); 3] =
    [("FLOAT32", VectorType::Float32), ("FLOAT16", VectorType::Float16), ("BFLOAT16", VectorType::Bfloat16)];
/// Names of quantizations as the API has them.
const QUANTIZATIONS: [(&str, Quantization); 3] =
    [("none", Quantization::None), ("int8", Quantization::Int8), ("int4", Quantization::Int4)];

fn vector_type(name: &str) -> Result<VectorType, String> {
    of_name(&TYPES, name)
}

fn quantization(name: &str) -> Result<Quantization, String> {
    of_name(&QUANTIZATIONS, name)
}

fn of_name<T: Copy>(known: &[(&str, T)], name: &str) -> Result<T, String> {
    known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value).ok_or_else(
        || {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            format!("there are {}", names.join(", "))
        },
    )
}

fn name_of<T: PartialEq>(known: &[(&'static str, T)], value: &T) -> &'static str {
    known.iter().find(|(_, known)| known == value).map(|(name, _)| *name).expect("every value has a name")
}
