//! An engine with the index it built.

use ::index::{Algorithm, Index, Metric, Options, Quantization, VectorType};
use anyhow::Result;
use serde_json::Value;

use super::{
    Arguments, Built, QUANTIZATIONS, Questions, Round, TYPES,
    library::{Library, Process, Variant},
    name_of, ours,
};
use crate::{report::Row, setting::Setting, truth, vectors::Vectors};

/// What an engine is called in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) engine: String,
    pub(super) vector_type: &'static str,
    pub(super) quantization: &'static str,
    /// Whether the index takes inserts and deletes while others search.
    pub(super) live: bool,
}

impl Label {
    /// Ours in this type and quantization.
    pub(super) fn ours(vector_type: VectorType, quantization: Quantization) -> Label {
        Label {
            engine: "nearfield".to_owned(),
            vector_type: name_of(&TYPES, &vector_type),
            quantization: name_of(&QUANTIZATIONS, &quantization),
            live: true,
        }
    }

    /// A library, of this version if it is known.
    pub(super) fn library(variant: &Variant, version: Option<&str>) -> Label {
        Label {
            engine: match version {
                Some(version) => format!("{} {version}", variant.engine),
                None => variant.engine.to_owned(),
            },
            vector_type: "FLOAT32",
            quantization: variant.quantization,
            live: variant.live,
        }
    }

    /// The row with engine, type and quantization.
    pub(super) fn name(&self, row: Row) -> Row {
        row.with("engine", self.engine.as_str())
            .with("type", self.vector_type)
            .with("quantization", self.quantization)
    }

    /// In a legend.
    pub(super) fn legend(&self) -> String {
        let held = match self.quantization {
            "none" => self.vector_type,
            other => other,
        };
        format!("{}, {held}", self.engine)
    }
}

/// An engine whose index stands.
pub(super) struct Contender {
    pub(super) label: Label,
    pub(super) m: u64,
    pub(super) ef_construction: u64,
    pub(super) built: Built,
    /// It searches no narrower.
    pub(super) ef_min: usize,
    library: Option<Library>,
    searcher: Searcher,
}

enum Searcher {
    Ours(Box<Index>),
    Library(Process),
}

impl Contender {
    /// Builds ours.
    pub(super) fn ours(
        corpus: &Vectors,
        vector_type: VectorType,
        quantization: Quantization,
        arguments: &Arguments,
        setting: &Setting,
    ) -> Result<Contender> {
        let label = Label::ours(vector_type, quantization);
        eprintln!("building {} over {} vectors", label.legend(), corpus.rows());
        let options = options(corpus.dim, arguments, vector_type, quantization);
        let (index, built) = ours::build(corpus, options, setting.cpu())?;
        Ok(Contender {
            label,
            m: arguments.m as u64,
            ef_construction: arguments.ef_construction as u64,
            built,
            ef_min: truth::K,
            library: None,
            searcher: Searcher::Ours(Box::new(index)),
        })
    }

    /// Starts a library and has it build.
    pub(super) fn library(
        variant: &Variant,
        corpus: &Vectors,
        arguments: &Arguments,
        setting: &Setting,
    ) -> Result<Contender> {
        let mut process = Process::start(variant, &setting.cache_dir, arguments.core)?;
        eprintln!("building {}, {} over {} vectors", variant.engine, variant.quantization, corpus.rows());
        let answer = process.build(corpus, arguments.m, arguments.ef_construction)?;
        Ok(Contender {
            label: Label::library(variant, Some(&answer.version)),
            m: answer.m,
            ef_construction: answer.ef_construction,
            built: answer.built,
            ef_min: variant.ef_min,
            library: Some(variant.library),
            searcher: Searcher::Library(process),
        })
    }

    /// Asks all questions, and measures times where `timed`.
    pub(super) fn search(&mut self, questions: &Questions, ef: usize, timed: bool) -> Result<Round> {
        match &mut self.searcher {
            Searcher::Ours(index) => Ok(ours::search(index, questions, ef)),
            Searcher::Library(process) => process.search(questions, ef, timed),
        }
    }

    /// Whether it is ours.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.searcher, Searcher::Ours(_))
    }

    /// Whether it is of this library.
    pub(super) fn is(&self, library: Library) -> bool {
        self.library == Some(library)
    }

    /// The row with what building took and gave.
    pub(super) fn cost(&self, row: Row) -> Row {
        let refine_s = match self.searcher {
            Searcher::Ours(_) => Value::from((self.built.refine_s * 10.0).round() / 10.0),
            Searcher::Library(_) => Value::Null,
        };
        self.built.tell(row).with("refine_s", refine_s)
    }
}

/// The options of an index of ours.
pub(super) fn options(
    dim: usize,
    arguments: &Arguments,
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
