//! The `k` nearest of a stream of candidates.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::Neighbor;

/// A bounded heap that keeps the `k` nearest of the vectors pushed, equal distances in order of their labels.
#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
    /// A max-heap: the farthest vector is on top.
    heap: BinaryHeap<Farthest>,
}

#[derive(Debug)]
struct Farthest(Neighbor);

impl PartialEq for Farthest {
    fn eq(&self, other: &Farthest) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Farthest {}

impl PartialOrd for Farthest {
    fn partial_cmp(&self, other: &Farthest) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Farthest {
    fn cmp(&self, other: &Farthest) -> Ordering {
        by_distance(&self.0, &other.0)
    }
}

/// Orders by distance, then by label.
pub(crate) fn by_distance(a: &Neighbor, b: &Neighbor) -> Ordering {
    a.distance.total_cmp(&b.distance).then(a.label.cmp(&b.label))
}

impl TopK {
    pub(crate) fn new(k: usize) -> TopK {
        TopK { k, heap: BinaryHeap::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, label: u32, distance: f32) {
        let candidate = Farthest(Neighbor { label, distance });
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut farthest) = self.heap.peek_mut()
            && candidate < *farthest
        {
            *farthest = candidate;
        }
    }

    /// The vectors kept, nearest first.
    pub(crate) fn into_sorted(self) -> Vec<Neighbor> {
        self.heap.into_sorted_vec().into_iter().map(|Farthest(neighbor)| neighbor).collect()
    }
}
