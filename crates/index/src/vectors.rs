//! Storage of the vectors.

use kernels::arena::{Guard, Rows};

use crate::nodes::Nodes;
use crate::vector_codec::{PreparedQuery, VectorCodec};

/// Rows with their metadata, and the codec that interprets them.
#[derive(Debug)]
pub(crate) struct Vectors {
    pub(crate) codec: VectorCodec,
    pub(crate) rows: Rows,
    pub(crate) nodes: Nodes,
}

impl Vectors {
    /// Prepares `query` from the vector at `slot`. `false` if its row is no longer published.
    pub(crate) fn prepare(&self, guard: &Guard<'_>, slot: u32, query: &mut PreparedQuery) -> bool {
        let Some(row) = guard.row(slot) else { return false };
        self.codec.prepare_from_row(row, self.nodes.scale(slot), query);
        true
    }
}
