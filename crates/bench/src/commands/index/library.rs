//! Other vector index libraries, in Python processes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::{BuildResult, QuerySet, RoundResult};
use crate::{
    ground_truth,
    peer::{Peer, number},
    vectors::{self, Vectors},
};

/// Candidates that a rescoring peer rescores.
const RESCORED: usize = 30;

/// A library to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Library {
    Hnswlib,
    Faiss,
    Usearch,
    Symphonyqg,
    /// No library: no Python environment is needed
    None,
}

/// A vector representation of a library.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) library: Library,
    /// The script is `bench/peers/{script}_peer.py`.
    script: &'static str,
    /// The script's argument for this variant, if it has several.
    argument: Option<&'static str>,
    /// The printed name.
    pub(super) engine: &'static str,
    pub(super) quantization: &'static str,
    /// The smallest ef_search it supports.
    pub(super) ef_min: usize,
    /// Whether vectors can be inserted and deleted during searches, according to its documentation.
    pub(super) live: bool,
}

impl Library {
    /// The measured variants.
    pub(super) fn variants(self) -> Vec<Variant> {
        let variant = |script, argument, engine, quantization| Variant {
            library: self,
            script,
            argument,
            engine,
            quantization,
            ef_min: ground_truth::K,
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
            Library::None => Vec::new(),
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

/// A library's description of the index it has built.
#[derive(Debug)]
pub(super) struct BuildAnswer {
    pub(super) version: String,
    /// Links per node; twice as many on the lowest layer, except where there is only one (SymphonyQG).
    pub(super) m: u64,
    pub(super) ef_construction: u64,
    pub(super) result: BuildResult,
}

impl Process {
    pub(super) fn start(variant: &Variant, cache_dir: &Path, core: usize) -> Result<Process> {
        let arguments: Vec<&str> = variant.argument.into_iter().collect();
        let peer = Peer::start(variant.script, &arguments, cache_dir, core)?;
        let name = [&[variant.script], &arguments[..]].concat().join("-");
        Ok(Process { peer, ids: cache_dir.join(format!("{name}-{}.u32", std::process::id())) })
    }

    pub(super) fn build(
        &mut self,
        corpus: &Vectors,
        m: usize,
        ef_construction: usize,
    ) -> Result<BuildAnswer> {
        let response = self.peer.request(&json!({
            "do": "build", "vectors": corpus.path, "rows": corpus.rows(), "dim": corpus.dim,
            "m": m, "ef_construction": ef_construction,
        }))?;
        let whole = |name: &str| {
            response[name]
                .as_u64()
                .with_context(|| format!("the response has no whole number {name}: {response}"))
        };
        let result = BuildResult {
            link_s: number(&response, "build_s")?,
            refine_s: 0.0,
            bytes_per_vector: number(&response, "bytes_per_vector")?,
        };
        let version = response["version"].as_str().context("the response has no version")?.to_owned();
        Ok(BuildAnswer { version, m: whole("m")?, ef_construction: whole("ef_construction")?, result })
    }

    /// Searches for all queries in one call; if `timed`, then once more one by one for the quantiles.
    pub(super) fn search(&mut self, query_set: &QuerySet, ef: usize, timed: bool) -> Result<RoundResult> {
        let response = self.peer.request(&json!({
            "do": "search", "queries": query_set.vectors.path, "rows": query_set.vectors.rows(),
            "first": query_set.first, "step": query_set.step,
            "k": ground_truth::K, "ef": ef, "ids": self.ids, "one_by_one": timed,
        }))?;
        let quantile = |name| if timed { number(&response, name) } else { Ok(f64::NAN) };
        let found = vectors::read_ids(&self.ids)?;
        Ok(RoundResult {
            qps: number(&response, "qps")?,
            p50_us: quantile("p50_us")?,
            p99_us: quantile("p99_us")?,
            recall_at_10: ground_truth::recall(&query_set.truth, &found),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The file does not exist if no search succeeded.
        let _ = std::fs::remove_file(&self.ids);
    }
}
