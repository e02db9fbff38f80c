//! The nearest few of many.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::Neighbor;

/// Keeps the `k` nearest of what it is offered; equal distances by label.
#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
    /// The farthest kept is on top.
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
        order(&self.0, &other.0)
    }
}

/// Nearest first, equal distances by label.
pub(crate) fn order(a: &Neighbor, b: &Neighbor) -> Ordering {
    a.distance.total_cmp(&b.distance).then(a.label.cmp(&b.label))
}

impl TopK {
    pub(crate) fn new(k: usize) -> TopK {
        TopK { k, heap: BinaryHeap::new() }
    }

    #[inline]
    pub(crate) fn offer(&mut self, label: u32, distance: f32) {
        let offered = Farthest(Neighbor { label, distance });
        if self.heap.len() < self.k {
            self.heap.push(offered);
        } else if let Some(mut farthest) = self.heap.peek_mut()
            && offered < *farthest
        {
            *farthest = offered;
        }
    }

    /// Those kept, nearest first.
    pub(crate) fn into_sorted(self) -> Vec<Neighbor> {
        self.heap.into_sorted_vec().into_iter().map(|Farthest(neighbor)| neighbor).collect()
    }
}
