//! Other libraries, in their Python processes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Built, Questions, Round};
use crate::{
    peer::{Peer, number},
    truth,
    vectors::{self, Vectors},
};

/// Candidates that the peers rescore where they do.
const RESCORED: usize = 30;

/// A library to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Library {
    Hnswlib,
    Faiss,
    Usearch,
    Symphonyqg,
}

/// A way in which a library holds vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) library: Library,
    /// Of `bench/peers/{script}_peer.py`.
    script: &'static str,
    /// What the script calls it, if it knows several.
    argument: Option<&'static str>,
    /// What a reader calls it.
    pub(super) engine: &'static str,
    pub(super) quantization: &'static str,
    /// It searches no narrower.
    pub(super) ef_min: usize,
    /// Whether, as its documentation has it, vectors can be inserted and deleted while others search.
    pub(super) live: bool,
}

impl Library {
    /// The ways of holding vectors that are measured.
    pub(super) fn variants(self) -> Vec<Variant> {
        let variant = |script, argument, engine, quantization| Variant {
            library: self,
            script,
            argument,
            engine,
            quantization,
            ef_min: truth::K,
            live: false,
        };
        match self {
            Library::Hnswlib => vec![variant("hnswlib", None, "hnswlib", "none")],
            Library::Faiss => vec![
                variant("faiss", Some("flat"), "faiss HNSWFlat", "none"),
                variant("faiss", Some("sq8"), "faiss HNSWSQ", "8 bits"),
                Variant {
                    ef_min: RESCORED,
                    ..variant("faiss", Some("sq8-rescored"), "faiss HNSWSQ", "8 bits, 30 rescored")
                },
            ],
            Library::Usearch => {
                let usearch = |argument, engine, quantization| Variant {
                    live: true,
                    ..variant("usearch", Some(argument), engine, quantization)
                };
                vec![
                    usearch("f32", "usearch f32", "none"),
                    usearch("i8", "usearch i8", "8 bits"),
                    Variant {
                        ef_min: RESCORED,
                        ..usearch("i8-rescored", "usearch i8", "8 bits, 30 rescored")
                    },
                ]
            }
            Library::Symphonyqg => vec![variant("symphonyqg", None, "SymphonyQG", "1 bit, rescored")],
        }
    }
}

/// A running library.
#[derive(Debug)]
pub(super) struct Process {
    peer: Peer,
    ids: PathBuf,
}

/// What a library says of the index it built.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) version: String,
    /// Links a node; twice as many on the lowest layer, except where there is only one (SymphonyQG).
    pub(super) m: u64,
    pub(super) ef_construction: u64,
    pub(super) built: Built,
}

impl Process {
    pub(super) fn start(variant: &Variant, cache_dir: &Path, core: usize) -> Result<Process> {
        let arguments: Vec<&str> = variant.argument.into_iter().collect();
        let peer = Peer::start(variant.script, &arguments, cache_dir, core)?;
        let name = [&[variant.script], &arguments[..]].concat().join("-");
        Ok(Process { peer, ids: cache_dir.join(format!("{name}-{}.u32", std::process::id())) })
    }

    pub(super) fn build(&mut self, corpus: &Vectors, m: usize, ef_construction: usize) -> Result<Answer> {
        let answer = self.peer.ask(&json!({
            "do": "build", "vectors": corpus.path, "rows": corpus.rows(), "dim": corpus.dim,
            "m": m, "ef_construction": ef_construction,
        }))?;
        let whole = |name: &str| {
            answer[name].as_u64().with_context(|| format!("the answer has no whole number {name}: {answer}"))
        };
        let built = Built {
            link_s: number(&answer, "build_s")?,
            refine_s: 0.0,
            bytes_per_vector: number(&answer, "bytes_per_vector")?,
        };
        let version = answer["version"].as_str().context("the answer has no version")?.to_owned();
        Ok(Answer { version, m: whole("m")?, ef_construction: whole("ef_construction")?, built })
    }

    /// Asks all questions; `timed`, once more one by one for the quantiles.
    pub(super) fn search(&mut self, questions: &Questions, ef: usize, timed: bool) -> Result<Round> {
        let answer = self.peer.ask(&json!({
            "do": "search", "queries": questions.of.path, "rows": questions.of.rows(),
            "first": questions.first, "step": questions.step,
            "k": truth::K, "ef": ef, "ids": self.ids, "one_by_one": timed,
        }))?;
        let quantile = |name| if timed { number(&answer, name) } else { Ok(f64::NAN) };
        let found = vectors::read_ids(&self.ids)?;
        Ok(Round {
            qps: number(&answer, "qps")?,
            p50_us: quantile("p50_us")?,
            p99_us: quantile("p99_us")?,
            recall_at_10: truth::recall(&questions.truth, &found),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Absent if no search was answered.
        let _ = std::fs::remove_file(&self.ids);
    }
}
