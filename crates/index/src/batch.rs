//! Scoring several slots in one kernel call.

use kernels::arena::Guard;

use crate::vector_codec::{PreparedQuery, RowBatch};
use crate::vectors::Vectors;

/// Slots, their rows and, after scoring, their distances.
#[derive(Debug)]
pub(crate) struct ScoreBatch<'a> {
    vectors: &'a Vectors,
    guard: &'a Guard<'a>,
    slots: Vec<u32>,
    rows: RowBatch<'a>,
    distances: Vec<f32>,
}

impl<'a> ScoreBatch<'a> {
    /// Creates an empty batch.
    pub(crate) fn new(vectors: &'a Vectors, guard: &'a Guard<'a>) -> ScoreBatch<'a> {
        ScoreBatch { vectors, guard, slots: Vec::new(), rows: RowBatch::default(), distances: Vec::new() }
    }

    /// Clears the batch.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.rows.clear();
    }

    /// Adds a slot and prefetches the part of its row that [`ScoreBatch::score`] reads. A slot whose row is no
    /// longer published is left out.
    #[inline]
    pub(crate) fn add(&mut self, slot: u32) {
        let Some(row) = self.guard.row(slot) else { return };
        self.vectors.codec.push_row(row, || self.vectors.nodes.scale(slot), &mut self.rows);
        self.slots.push(slot);
    }

    /// Number of slots in the batch.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Scores the slots, quantised ones by their codes alone.
    #[inline]
    pub(crate) fn score(&mut self, query: &mut PreparedQuery) {
        self.distances.resize(self.slots.len(), 0.0);
        self.vectors.codec.distances(query, &self.rows, &mut self.distances);
    }

    /// Scores the slots at the full precision of their rows.
    pub(crate) fn score_exact(&mut self, query: &mut PreparedQuery) {
        self.distances.resize(self.slots.len(), 0.0);
        self.vectors.codec.exact_distances(query, &self.rows, &mut self.distances);
    }

    /// The slots with their distances.
    #[inline]
    pub(crate) fn scored(&self) -> impl Iterator<Item = (u32, f32)> {
        self.slots.iter().copied().zip(self.distances.iter().copied())
    }
}
