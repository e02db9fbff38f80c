//! What building an index and asking it all queries once gave.

use crate::report::Row;

/// What building gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Built {
    /// Until every vector was in the graph.
    pub(crate) link_s: f64,
    /// Until the pass over the finished graph was through; 0 where there is none.
    pub(crate) refine_s: f64,
    /// Everything included.
    pub(crate) bytes_per_vector: f64,
}

impl Built {
    /// The row with what building took and gave, but for how long refining took: only ours refines.
    pub(super) fn tell(&self, row: Row) -> Row {
        row.with_rounded("bytes_per_vector", self.bytes_per_vector, 0)
            .with_rounded("build_s", self.build_s(), 1)
            .with_rounded("link_s", self.link_s, 1)
    }

    /// Both steps of building.
    pub(crate) fn build_s(&self) -> f64 {
        self.link_s + self.refine_s
    }
}

/// What a round over the queries gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) qps: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) recall_at_10: f64,
}
