//! The vectors themselves, and distances to them.

use kernels::arena::{Guard, Rows};

use crate::nodes::Nodes;
use crate::vector_codec::{Query, VectorCodec};

/// Rows, with what is known of them.
#[derive(Debug)]
pub(crate) struct Vectors {
    pub(crate) codec: VectorCodec,
    pub(crate) rows: Rows,
    pub(crate) nodes: Nodes,
}

impl Vectors {
    /// Makes `query` ask for what is near the vector at `slot`; `false` if its row has gone.
    pub(crate) fn prepare(&self, guard: &Guard<'_>, slot: u32, query: &mut Query) -> bool {
        let Some(row) = guard.row(slot) else { return false };
        self.codec.prepare_row(row, self.nodes.scale(slot), query);
        true
    }
}
