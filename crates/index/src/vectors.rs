//! The vectors themselves, and distances to them.

use kernels::arena::{Guard, Rows};

use crate::nodes::Nodes;
use crate::scratch::Batch;
use crate::space::{BATCH, Query, Space};

/// Rows, with what is known of them.
#[derive(Debug)]
pub(crate) struct Vectors {
    pub(crate) space: Space,
    pub(crate) rows: Rows,
    pub(crate) nodes: Nodes,
}

impl Vectors {
    /// Scores the slots of a batch as walks do. Slots whose rows have gone are dropped from it.
    pub(crate) fn score(&self, guard: &Guard<'_>, query: &mut Query, batch: &mut Batch) {
        self.score_with(Space::distances, guard, query, batch);
    }

    /// Scores the slots of a batch by all that their rows hold. Slots whose rows have gone are
    /// dropped from it.
    pub(crate) fn score_exactly(&self, guard: &Guard<'_>, query: &mut Query, batch: &mut Batch) {
        self.score_with(Space::exact_distances, guard, query, batch);
    }

    #[inline]
    fn score_with(
        &self,
        distances_of: impl Fn(&Space, &mut Query, &[&[u8]], &[f32], &mut [f32]),
        guard: &Guard<'_>,
        query: &mut Query,
        batch: &mut Batch,
    ) {
        let Batch { slots, distances } = batch;
        distances.clear();
        let (mut scored, mut from) = (0, 0);
        while from < slots.len() {
            let mut rows: [&[u8]; BATCH] = [&[]; BATCH];
            let mut scales = [1f32; BATCH];
            let mut count = 0;
            let to = slots.len().min(from + BATCH);
            for at in from..to {
                let slot = slots[at];
                if let Some(row) = guard.row(slot) {
                    rows[count] = row;
                    slots[scored + count] = slot;
                    count += 1;
                }
            }
            if self.space.is_scaled() {
                for (scale, &slot) in scales.iter_mut().zip(&slots[scored..scored + count]) {
                    *scale = self.nodes.scale(slot);
                }
            }
            distances.resize(scored + count, 0.0);
            distances_of(&self.space, query, &rows[..count], &scales[..count], &mut distances[scored..]);
            scored += count;
            from = to;
        }
        slots.truncate(scored);
    }

    /// Makes `query` ask for what is near the vector at `slot`; `false` if its row has gone.
    pub(crate) fn prepare(&self, guard: &Guard<'_>, slot: u32, query: &mut Query) -> bool {
        let Some(row) = guard.row(slot) else { return false };
        self.space.prepare_row(row, self.nodes.scale(slot), query);
        true
    }
}
