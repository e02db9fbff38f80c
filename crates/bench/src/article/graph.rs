//! Small indexes over the first packages, to measure the effect of parameters and types.

use std::time::Instant;

use ::index::{Algorithm, Index, Metric, Options, Quantization, SearchParams, VectorType};
use anyhow::Result;

use crate::{
    commands::index::{self, BuildResult, QuerySet, RoundResult},
    global_options::GlobalOptions,
    ground_truth,
};

/// Parameters of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parameters {
    pub(super) m: usize,
    pub(super) ef_construction: usize,
    pub(super) vector_type: VectorType,
    pub(super) quantization: Quantization,
    /// Number of vectors.
    pub(super) rows: usize,
}

impl Parameters {
    /// The article's parameters, without vectors.
    pub(super) const ARTICLE: Parameters = Parameters {
        m: 16,
        ef_construction: 200,
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        rows: 0,
    };
}

/// A built graph, with queries and their exact neighbours.
pub(super) struct Graph {
    index: Index,
    pub(super) built: BuildResult,
    query_set: QuerySet,
}

impl Graph {
    /// Builds a graph over the first packages.
    pub(super) fn build(parameters: Parameters, global: &GlobalOptions) -> Result<Graph> {
        let (corpus, queries) = index::packages(parameters.rows, 1000, global)?;
        let query_set = QuerySet::all(&corpus, queries, global)?;
        let options = Options {
            dim: corpus.dim,
            metric: Metric::Cosine,
            vector_type: parameters.vector_type,
            quantization: parameters.quantization,
            algorithm: Algorithm::Hnsw { m: parameters.m, ef_construction: parameters.ef_construction },
        };
        let (index, built) = index::build(&corpus, options, global.cpu())?;
        Ok(Graph { index, built, query_set })
    }

    /// Throughput, latency and recall of all queries at one ef_search.
    pub(super) fn round(&self, ef: usize) -> RoundResult {
        index::search(&self.index, &self.query_set, ef)
    }

    /// Microseconds of each of the first `count` searches, through the graph or exact.
    pub(super) fn times_us(&self, ef: usize, exact: bool, count: usize) -> Vec<f64> {
        let search = SearchParams { k: ground_truth::K, ef, allowed: None, exact };
        self.query_set
            .rows()
            .take(count)
            .map(|query| {
                let began = Instant::now();
                std::hint::black_box(self.index.search(query, &search));
                began.elapsed().as_secs_f64() * 1e6
            })
            .collect()
    }
}
