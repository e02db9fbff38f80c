//! `index`: the vector index alone, compared with other libraries on the same vectors in the same run.

mod article;
mod churn;
mod competitor;
mod competitors;
mod curve;
mod ef;
mod growth;
mod library;
mod live;
mod measurement;
mod ours;
mod query_set;
mod results;
mod snapshots;
mod targets;
mod tuning;

use std::path::PathBuf;

use ::index::{Quantization, VectorType};
use anyhow::{Result, ensure};

use crate::{global_options::GlobalOptions, plot, report::Format};
use library::Library;

pub(crate) use ours::{build, search};
pub(crate) use query_set::{QuerySet, packages};
pub(crate) use results::{BuildResult, RoundResult};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IndexPart {
    /// Throughput, latency and memory at recalls of .90, .95, .99 and .995, compared with the libraries.
    Targets,
    /// Recall and throughput by ef_search, compared with the libraries.
    Ef,
    /// Sections 8.2 and 6.4 of the article: M, ef_construction, ef_search; types and quantization.
    Article,
    /// Build time, memory and throughput by number of vectors.
    Growth,
    /// Searching while writing, building on two cores, churn, snapshots.
    Live,
}

/// Arguments of `index`.
#[derive(Debug, clap::Args)]
pub(crate) struct IndexArguments {
    /// Parts to run
    #[arg(long, value_delimiter = ',', default_value = "targets")]
    part: Vec<IndexPart>,
    /// Number of packages to use, from the first
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Number of queries to use; every second one tunes, the others are reported (`targets`, `growth`)
    #[arg(long, value_name = "N", default_value_t = 5000)]
    queries: usize,
    /// Values of recall@10 at which to compare (`targets`)
    #[arg(long, value_delimiter = ',', default_value = "0.9,0.95,0.99,0.995")]
    target: Vec<f64>,
    /// Values of ef_search (`ef`, `article`)
    #[arg(long, value_delimiter = ',', default_value = "10,20,40,50,80,120,200,400")]
    ef: Vec<usize>,
    /// M: links per node
    #[arg(long, default_value_t = 16)]
    m: usize,
    /// ef_construction
    #[arg(long, default_value_t = 200)]
    ef_construction: usize,
    /// Vector types: FLOAT32, FLOAT16, BFLOAT16
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = vector_type, default_value = "FLOAT32")]
    vector_type: Vec<VectorType>,
    /// Quantizations of the index: none, int8, int4
    #[arg(long, value_delimiter = ',', value_parser = quantization, default_value = "none,int8,int4")]
    quantization: Vec<Quantization>,
    /// Rounds over all points, in which the engines alternate; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Core of Nearfield and the peers, in turn
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Core of the work done during searches (`live`)
    #[arg(long, default_value_t = 0)]
    other_core: usize,
    /// Libraries to compare with (`targets`, `ef`), or `none`
    #[arg(long, value_delimiter = ',', default_value = "hnswlib,faiss,usearch,symphonyqg")]
    peers: Vec<Library>,
    /// M and ef_construction of the grid, as MxEF_CONSTRUCTION; the article's by default (`article`)
    #[arg(long, value_name = "MxEF", value_delimiter = ',', value_parser = grid_point, hide = true)]
    grid: Vec<(usize, usize)>,
    /// Numbers of vectors (`growth`)
    #[arg(long, value_delimiter = ',', default_value = "10000,50000,250000")]
    sizes: Vec<usize>,
    /// JSON Lines file with a `text` member per line, used after the packages; embedded once (`growth`)
    #[arg(long, value_name = "FILE")]
    more: Vec<PathBuf>,
    /// Number of times half of the collection is deleted and inserted again (`live`)
    #[arg(long, default_value_t = 10)]
    churns: usize,
    /// Plot the results of `targets` or `growth` to this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

impl IndexArguments {
    fn check(&self) -> Result<()> {
        ensure!(self.queries >= 2, "--queries must be at least 2: one half tunes, the other is reported");
        ensure!(self.runs > 0, "--runs must be at least 1");
        ensure!(
            self.target.iter().all(|target| (0.0..1.0).contains(target)),
            "--target: a recall must be at least 0 and below 1"
        );
        let drawn =
            self.part.iter().filter(|part| matches!(part, IndexPart::Targets | IndexPart::Growth)).count();
        ensure!(
            self.plot.is_none() || drawn == 1,
            "--plot requires exactly one of the parts targets and growth"
        );
        if let Some(path) = &self.plot {
            plot::check_path(path)?;
        }
        Ok(())
    }
}

/// Measures and prints.
pub(crate) fn run(arguments: &IndexArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    arguments.check()?;
    for part in &arguments.part {
        match part {
            IndexPart::Targets => targets::run(arguments, global, format)?,
            IndexPart::Ef => ef::run(arguments, global, format)?,
            IndexPart::Article => article::run(arguments, global, format)?,
            IndexPart::Growth => growth::run(arguments, global, format)?,
            IndexPart::Live => live::run(arguments, global, format)?,
        }
    }
    Ok(())
}

/// The API's names of vector types.
const TYPES: [(&str, VectorType); 3] =
    [("FLOAT32", VectorType::Float32), ("FLOAT16", VectorType::Float16), ("BFLOAT16", VectorType::Bfloat16)];
/// The API's names of quantizations.
const QUANTIZATIONS: [(&str, Quantization); 3] =
    [("none", Quantization::None), ("int8", Quantization::Int8), ("int4", Quantization::Int4)];

fn vector_type(name: &str) -> Result<VectorType, String> {
    of_name(&TYPES, name)
}

fn quantization(name: &str) -> Result<Quantization, String> {
    of_name(&QUANTIZATIONS, name)
}

fn of_name<T: Copy>(names: &[(&str, T)], name: &str) -> Result<T, String> {
    names.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value).ok_or_else(
        || {
            let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            format!("expected one of {}", names.join(", "))
        },
    )
}

/// Parses a point of the grid.
fn grid_point(text: &str) -> Result<(usize, usize), String> {
    text.split_once('x')
        .and_then(|(m, ef_construction)| Some((m.parse().ok()?, ef_construction.parse().ok()?)))
        .ok_or_else(|| "expected MxEF_CONSTRUCTION, such as 16x200".to_owned())
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, found)| found == value).map(|(name, _)| *name).expect("every value has a name")
}
