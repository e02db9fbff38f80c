//! Slots that are scored together.

use kernels::arena::Guard;

use crate::space::{Query, Space};
use crate::vectors::Vectors;

/// Slots, their rows and, once scored, their distances.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    vectors: &'a Vectors,
    guard: &'a Guard<'a>,
    slots: Vec<u32>,
    rows: Vec<&'a [u8]>,
    /// Empty where every scale is 1.
    scales: Vec<f32>,
    distances: Vec<f32>,
}

impl<'a> Batch<'a> {
    /// An empty one.
    pub(crate) fn new(vectors: &'a Vectors, guard: &'a Guard<'a>) -> Batch<'a> {
        Batch {
            vectors,
            guard,
            slots: Vec::new(),
            rows: Vec::new(),
            scales: Vec::new(),
            distances: Vec::new(),
        }
    }

    /// Empties it.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.rows.clear();
        self.scales.clear();
    }

    /// Adds a slot and asks for what walks read of its row; one whose row has gone is left out.
    #[inline]
    pub(crate) fn add(&mut self, slot: u32) {
        let Some(row) = self.guard.row(slot) else { return };
        self.vectors.space.prefetch(row);
        self.slots.push(slot);
        self.rows.push(row);
        if self.vectors.space.is_scaled() {
            self.scales.push(self.vectors.nodes.scale(slot));
        }
    }

    /// Slots in it.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Scores the slots as walks do.
    #[inline]
    pub(crate) fn score(&mut self, query: &mut Query) {
        self.score_with(Space::distances, query);
    }

    /// Scores the slots by all that their rows hold.
    pub(crate) fn score_exactly(&mut self, query: &mut Query) {
        self.rows.iter().for_each(|row| self.vectors.space.prefetch_rest(row));
        self.score_with(Space::exact_distances, query);
    }

    #[inline]
    fn score_with(
        &mut self,
        distances: impl Fn(&Space, &mut Query, &[&[u8]], &[f32], &mut [f32]),
        query: &mut Query,
    ) {
        self.distances.resize(self.rows.len(), 0.0);
        distances(&self.vectors.space, query, &self.rows, &self.scales, &mut self.distances);
    }

    /// The slots with their distances.
    #[inline]
    pub(crate) fn scored(&self) -> impl Iterator<Item = (u32, f32)> {
        self.slots.iter().copied().zip(self.distances.iter().copied())
    }
}
