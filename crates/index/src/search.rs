//! Finding: by scan or by walk, over everything or over the allowed.

use kernels::arena::Guard;
use roaring::RoaringBitmap;

use crate::best::{Best, order};
use crate::graph::Graph;
use crate::scratch::{self, Scratch};
use crate::space::BATCH;
use crate::{Index, NONE, Neighbor, Search};

/// Rows a walk scores for each candidate it keeps, about (measured on sentence embeddings at
/// breadths of 50 to 400).
const SCORED_PER_CANDIDATE: f64 = 12.0;

impl Index {
    pub(crate) fn find(&self, query: &[f32], search: &Search<'_>) -> Vec<Neighbor> {
        if search.k == 0 || search.allowed.is_some_and(RoaringBitmap::is_empty) {
            return Vec::new();
        }
        scratch::with(|scratch| {
            self.vectors.space.prepare(query, &mut scratch.query);
            let guard = self.vectors.rows.pin();
            let walked = match &self.graph {
                Some(graph) if !search.exact && !self.scan_is_cheaper(search) => {
                    self.walk(graph, &guard, scratch, search)
                }
                _ => None,
            };
            walked.unwrap_or_else(|| self.scan(&guard, scratch, search))
        })
    }

    /// Whether comparing with every allowed vector costs less than a walk that passes the others by.
    fn scan_is_cheaper(&self, search: &Search<'_>) -> bool {
        let Some(allowed) = search.allowed else { return false };
        let (allowed, vectors) = (allowed.len() as f64, self.vectors_count() as f64);
        let share = (allowed / vectors).min(1.0);
        allowed * share <= SCORED_PER_CANDIDATE * search.ef.max(search.k) as f64
    }

    /// Walks the graph and scans the tail; `None` if that finds too few, or would cost more than a scan.
    fn walk(
        &self,
        graph: &Graph,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        search: &Search<'_>,
    ) -> Option<Vec<Neighbor>> {
        let nodes = &self.vectors.nodes;
        let counts = |slot: u32| {
            nodes.is_visible(slot, guard.epoch())
                && search.allowed.is_none_or(|allowed| allowed.contains(nodes.owner(slot)))
        };
        // First the tail: what leaves it meanwhile is in the graph before the walk begins.
        let tail = self.tail.iter(nodes).filter(|&slot| counts(slot));
        let mut found = self.nearest(guard, scratch, tail, search.k);
        if let Some(entry) = graph.entry() {
            let start = graph.descend(&self.vectors, guard, scratch, entry, 0);
            let breadth = search.ef.max(search.k);
            let budget = search.allowed.map_or(usize::MAX, |allowed| allowed.len() as usize);
            graph.walk(&self.vectors, guard, scratch, start, 0, breadth, budget, counts).ok()?;
            let walked = scratch.pool.found();
            found.extend(walked.map(|c| Neighbor { owner: nodes.owner(c.slot), distance: c.distance }));
        }
        // A vector linked between scan and walk was found twice.
        found.sort_by(order);
        found.dedup_by_key(|neighbor| neighbor.owner);
        let matches = search.allowed.map_or(usize::MAX, |allowed| allowed.len() as usize);
        let expected = search.k.min(self.vectors_count()).min(matches);
        found.truncate(search.k);
        (found.len() >= expected).then_some(found)
    }

    /// Compares with every vector, or with every allowed one.
    fn scan(&self, guard: &Guard<'_>, scratch: &mut Scratch, search: &Search<'_>) -> Vec<Neighbor> {
        let end = self.vectors.rows.end();
        let nodes = &self.vectors.nodes;
        match search.allowed {
            Some(allowed) if allowed.len() < u64::from(end) => {
                self.scan_owners(guard, scratch, allowed, search.k)
            }
            allowed => {
                let counts = |slot: &u32| {
                    nodes.is_visible(*slot, guard.epoch())
                        && allowed.is_none_or(|allowed| allowed.contains(nodes.owner(*slot)))
                };
                self.nearest(guard, scratch, (0..end).filter(counts), search.k)
            }
        }
    }

    /// The `k` nearest of the slots.
    fn nearest(
        &self,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        slots: impl Iterator<Item = u32>,
        k: usize,
    ) -> Vec<Neighbor> {
        let Scratch { query, batch, .. } = scratch;
        let mut best = Best::new(k);
        let mut slots = slots.peekable();
        while slots.peek().is_some() {
            batch.slots.clear();
            batch.slots.extend(slots.by_ref().take(BATCH));
            self.vectors.score(guard, query, batch);
            for (&slot, &distance) in batch.slots.iter().zip(&batch.distances) {
                best.offer(self.vectors.nodes.owner(slot), distance);
            }
        }
        best.into_sorted()
    }

    /// The `k` nearest of the owners' vectors, those they have at the moment they are met.
    fn scan_owners(
        &self,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        allowed: &RoaringBitmap,
        k: usize,
    ) -> Vec<Neighbor> {
        let mut best = Best::new(k);
        let mut held = allowed.iter().filter_map(|owner| {
            let (slot, row) = self.row_of(guard, owner)?;
            Some((owner, row, self.vectors.nodes.scale(slot)))
        });
        loop {
            let (mut owners, mut rows, mut scales) = ([NONE; BATCH], [&[][..]; BATCH], [1.0; BATCH]);
            let mut count = 0;
            for (owner, row, scale) in held.by_ref().take(BATCH) {
                (owners[count], rows[count], scales[count]) = (owner, row, scale);
                count += 1;
            }
            if count == 0 {
                return best.into_sorted();
            }
            let mut distances = [0.0; BATCH];
            let out = &mut distances[..count];
            self.vectors.space.distances(&mut scratch.query, &rows[..count], &scales[..count], out);
            owners.into_iter().zip(out).for_each(|(owner, distance)| best.offer(owner, *distance));
        }
    }
}
