//! An engine and the index it has built.

use ::index::{Algorithm, Index, Metric, Options, Quantization, VectorType};
use anyhow::Result;
use serde_json::Value;

use super::{
    BuildResult, IndexArguments, QUANTIZATIONS, QuerySet, RoundResult, TYPES,
    library::{Library, Process, Variant},
    name_of, ours,
};
use crate::{global_options::GlobalOptions, ground_truth, report::Row, vectors::Vectors};

/// Engine, type and quantization, as printed in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EngineLabel {
    pub(super) engine: String,
    pub(super) vector_type: &'static str,
    pub(super) quantization: &'static str,
    /// Whether the index takes inserts and deletes while others search.
    pub(super) live: bool,
}

impl EngineLabel {
    /// Nearfield with this type and quantization.
    pub(super) fn nearfield(vector_type: VectorType, quantization: Quantization) -> EngineLabel {
        EngineLabel {
            engine: "nearfield".to_owned(),
            vector_type: name_of(&TYPES, &vector_type),
            quantization: name_of(&QUANTIZATIONS, &quantization),
            live: true,
        }
    }

    /// A library, with its version if known.
    pub(super) fn library(variant: &Variant, version: Option<&str>) -> EngineLabel {
        EngineLabel {
            engine: match version {
                Some(version) => format!("{} {version}", variant.engine),
                None => variant.engine.to_owned(),
            },
            vector_type: "FLOAT32",
            quantization: variant.quantization,
            live: variant.live,
        }
    }

    /// Adds engine, type and quantization to a row.
    pub(super) fn name(&self, row: Row) -> Row {
        row.with("engine", self.engine.as_str())
            .with("type", self.vector_type)
            .with("quantization", self.quantization)
    }

    /// The text in a legend.
    pub(super) fn legend(&self) -> String {
        let representation = match self.quantization {
            "none" => self.vector_type,
            other => other,
        };
        format!("{}, {representation}", self.engine)
    }
}

/// An engine with its index.
pub(super) struct Competitor {
    pub(super) label: EngineLabel,
    pub(super) m: u64,
    pub(super) ef_construction: u64,
    pub(super) built: BuildResult,
    /// The smallest ef_search it supports.
    pub(super) ef_min: usize,
    library: Option<Library>,
    searcher: Searcher,
}

enum Searcher {
    Nearfield(Box<Index>),
    Library(Process),
}

impl Competitor {
    /// Builds Nearfield's index.
    pub(super) fn nearfield(
        corpus: &Vectors,
        vector_type: VectorType,
        quantization: Quantization,
        arguments: &IndexArguments,
        global: &GlobalOptions,
    ) -> Result<Competitor> {
        let label = EngineLabel::nearfield(vector_type, quantization);
        eprintln!("building {} over {} vectors", label.legend(), corpus.rows());
        let options = options(corpus.dim, arguments, vector_type, quantization);
        let (index, built) = ours::build(corpus, options, global.cpu())?;
        Ok(Competitor {
            label,
            m: arguments.m as u64,
            ef_construction: arguments.ef_construction as u64,
            built,
            ef_min: ground_truth::K,
            library: None,
            searcher: Searcher::Nearfield(Box::new(index)),
        })
    }

    /// Starts a library and builds its index.
    pub(super) fn library(
        variant: &Variant,
        corpus: &Vectors,
        arguments: &IndexArguments,
        global: &GlobalOptions,
    ) -> Result<Competitor> {
        let mut process = Process::start(variant, &global.cache_dir, arguments.core)?;
        eprintln!("building {}, {} over {} vectors", variant.engine, variant.quantization, corpus.rows());
        let built = process.build(corpus, arguments.m, arguments.ef_construction)?;
        Ok(Competitor {
            label: EngineLabel::library(variant, Some(&built.version)),
            m: built.m,
            ef_construction: built.ef_construction,
            built: built.result,
            ef_min: variant.ef_min,
            library: Some(variant.library),
            searcher: Searcher::Library(process),
        })
    }

    /// Searches for all queries, with the latency of each if `timed`.
    pub(super) fn search(&mut self, query_set: &QuerySet, ef: usize, timed: bool) -> Result<RoundResult> {
        match &mut self.searcher {
            Searcher::Nearfield(index) => Ok(ours::search(index, query_set, ef)),
            Searcher::Library(process) => process.search(query_set, ef, timed),
        }
    }

    /// Whether this is Nearfield.
    pub(super) fn is_nearfield(&self) -> bool {
        matches!(self.searcher, Searcher::Nearfield(_))
    }

    /// Whether this is a variant of the library.
    pub(super) fn is(&self, library: Library) -> bool {
        self.library == Some(library)
    }

    /// Adds the cost of building to a row.
    pub(super) fn cost(&self, row: Row) -> Row {
        let refine_s = match self.searcher {
            Searcher::Nearfield(_) => Value::from((self.built.refine_s * 10.0).round() / 10.0),
            Searcher::Library(_) => Value::Null,
        };
        self.built.add_to(row).with("refine_s", refine_s)
    }
}

/// The options of a Nearfield index.
pub(super) fn options(
    dim: usize,
    arguments: &IndexArguments,
    vector_type: VectorType,
    quantization: Quantization,
) -> Options {
    Options {
        dim,
        metric: Metric::Cosine,
        vector_type,
        quantization,
        algorithm: Algorithm::Hnsw { m: arguments.m, ef_construction: arguments.ef_construction },
    }
}
