//! Results of building an index and of one round of queries.

use crate::report::Row;

/// The cost of building an index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuildResult {
    /// Seconds until every vector was in the graph.
    pub(crate) link_s: f64,
    /// Seconds of the refinement pass over the finished graph; 0 if there is none.
    pub(crate) refine_s: f64,
    /// Vectors, links and everything else.
    pub(crate) bytes_per_vector: f64,
}

impl BuildResult {
    /// Adds the cost to a row, without the refinement time, which only Nearfield has.
    pub(super) fn add_to(&self, row: Row) -> Row {
        row.with_rounded("bytes_per_vector", self.bytes_per_vector, 0)
            .with_rounded("build_s", self.build_s(), 1)
            .with_rounded("link_s", self.link_s, 1)
    }

    /// Seconds of both steps.
    pub(crate) fn build_s(&self) -> f64 {
        self.link_s + self.refine_s
    }
}

/// The result of a round over the queries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundResult {
    pub(crate) qps: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) recall_at_10: f64,
}
