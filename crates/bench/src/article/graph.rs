//! The index by itself, over the first packages: what its parameters and types do.

use std::time::Instant;

use ::index::{Algorithm, Index, Metric, Options, Quantization, SearchParams, VectorType};
use anyhow::Result;

use crate::{
    commands::index::{self, Built, Questions, Round},
    setting::Setting,
    truth,
};

/// Parameters of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parameters {
    pub(super) m: usize,
    pub(super) ef_construction: usize,
    pub(super) vector_type: VectorType,
    pub(super) quantization: Quantization,
    /// Vectors in it.
    pub(super) rows: usize,
}

impl Parameters {
    /// The article's, over no vectors yet.
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
    pub(super) built: Built,
    questions: Questions,
}

impl Graph {
    /// Builds a graph over the first packages.
    pub(super) fn build(parameters: Parameters, setting: &Setting) -> Result<Graph> {
        let (corpus, queries) = index::packages(parameters.rows, 1000, setting)?;
        let questions = Questions::all(&corpus, queries, setting)?;
        let options = Options {
            dim: corpus.dim,
            metric: Metric::Cosine,
            vector_type: parameters.vector_type,
            quantization: parameters.quantization,
            algorithm: Algorithm::Hnsw { m: parameters.m, ef_construction: parameters.ef_construction },
        };
        let (index, built) = index::build(&corpus, options, setting.cpu())?;
        Ok(Graph { index, built, questions })
    }

    /// Rate, times and recall of all queries at a breadth.
    pub(super) fn round(&self, ef: usize) -> Round {
        index::search(&self.index, &self.questions, ef)
    }

    /// Microseconds of each of the first `count` searches, through the graph or exact.
    pub(super) fn times_us(&self, ef: usize, exact: bool, count: usize) -> Vec<f64> {
        let search = SearchParams { k: truth::K, ef, allowed: None, exact };
        self.questions
            .rows()
            .take(count)
            .map(|query| {
                let begun = Instant::now();
                std::hint::black_box(self.index.search(query, &search));
                begun.elapsed().as_secs_f64() * 1e6
            })
            .collect()
    }
}
