//! What building an index and asking it all queries once gave.

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
