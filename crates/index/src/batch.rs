//! Slots that are scored together.

use kernels::arena::Guard;

use crate::vector_codec::{Gathered, Query};
use crate::vectors::Vectors;

/// Slots, their rows and, once scored, their distances.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    vectors: &'a Vectors,
    guard: &'a Guard<'a>,
    slots: Vec<u32>,
    rows: Gathered<'a>,
    distances: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// An empty one.
    pub(crate) fn new(vectors: &'a Vectors, guard: &'a Guard<'a>) -> Batch<'a> {
        Batch { vectors, guard, slots: Vec::new(), rows: Gathered::default(), distances: Vec::new() }
    }

    /// Empties it.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.rows.clear();
    }

    /// Adds a slot and asks for what walks read of its row; one whose row has gone is left out.
    #[inline]
    pub(crate) fn add(&mut self, slot: u32) {
        let Some(row) = self.guard.row(slot) else { return };
        self.vectors.codec.gather(row, || self.vectors.nodes.scale(slot), &mut self.rows);
        self.slots.push(slot);
    }

    /// Slots in it.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Scores the slots as walks do.
    #[inline]
    pub(crate) fn score(&mut self, query: &mut Query) {
        self.distances.resize(self.slots.len(), 0.0);
        self.vectors.codec.distances(query, &self.rows, &mut self.distances);
    }

    /// Scores the slots by all that their rows hold.
    pub(crate) fn score_exactly(&mut self, query: &mut Query) {
        self.distances.resize(self.slots.len(), 0.0);
        self.vectors.codec.exact_distances(query, &self.rows, &mut self.distances);
    }

    /// The slots with their distances.
    #[inline]
    pub(crate) fn scored(&self) -> impl Iterator<Item = (u32, f32)> {
        self.slots.iter().copied().zip(self.distances.iter().copied())
    }
}
