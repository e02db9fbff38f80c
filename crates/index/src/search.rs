//! Finding: by scan or by walk, over everything or over the allowed.

use kernels::arena::Guard;
use roaring::RoaringBitmap;

use crate::batch::Batch;
use crate::graph::Graph;
use crate::scratch::{self, Scratch};
use crate::top_k::{TopK, order};
use crate::{Index, Neighbor, SearchParams};

/// Rows of a scan that are scored together.
const BATCH: usize = 32;
/// A scan of at most so many rows for each candidate a walk would keep is not dearer than a walk among
/// them, and takes less than three times a walk without a filter (measured on sentence embeddings).
const SCANNED_PER_CANDIDATE: usize = 96;
/// Of quantised vectors as many again as are wanted are scored exactly, and so many at least.
const RESCORED_MORE_MIN: usize = 10;

impl Index {
    pub(crate) fn find(&self, query: &[f32], search: &SearchParams<'_>) -> Vec<Neighbor> {
        if search.k == 0 || search.allowed.is_some_and(RoaringBitmap::is_empty) {
            return Vec::new();
        }
        scratch::with(|scratch| {
            self.vectors.codec.prepare(query, &mut scratch.query);
            let guard = self.vectors.rows.pin();
            let walked = match &self.graph {
                Some(graph) if !search.exact && !self.scan_is_cheaper(search) => {
                    self.search_graph(graph, &guard, scratch, search)
                }
                _ => None,
            };
            walked.unwrap_or_else(|| self.scan(&guard, scratch, search))
        })
    }

    /// Whether comparing with every allowed vector costs no more than a walk.
    fn scan_is_cheaper(&self, search: &SearchParams<'_>) -> bool {
        let most = SCANNED_PER_CANDIDATE.saturating_mul(search.ef.max(search.k)) as u64;
        search.allowed.is_some_and(|allowed| allowed.len() <= most)
    }

    /// Walks the graph and scans the tail; `None` if that finds too few, or would cost more than a scan.
    fn search_graph(
        &self,
        graph: &Graph,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        search: &SearchParams<'_>,
    ) -> Option<Vec<Neighbor>> {
        let nodes = &self.vectors.nodes;
        let is_allowed = |slot: u32| search.allowed.is_none_or(|allowed| allowed.contains(nodes.label(slot)));
        let is_visible = |slot: &u32| nodes.is_visible(*slot, guard.epoch());
        // First the tail: what leaves it meanwhile is in the graph before the walk begins.
        let tail = self.tail.iter(nodes).filter(|slot| is_visible(slot) && is_allowed(*slot));
        let mut found = self.nearest(guard, scratch, tail, search.k);
        if let Some(entry) = graph.entry() {
            let start = graph.descend(&self.vectors, guard, scratch, entry, 0);
            let ef = search.ef.max(search.k);
            // Few were born since this search began, so that is looked at only once at the end.
            let counts = |slot: u32| (nodes.is_live(slot) || is_visible(&slot)) && is_allowed(slot);
            match search.allowed {
                Some(allowed) => {
                    self.search_filtered(graph, guard, scratch, start, ef, search.k, allowed, counts).ok()?;
                }
                None => graph
                    .search_layer(&self.vectors, guard, scratch, start, 0, ef, usize::MAX, counts)
                    .expect("a walk without a budget ends by itself"),
            }
            let walked = scratch.candidates.found().filter(|candidate| is_visible(&candidate.slot));
            if self.vectors.codec.is_quantized() {
                let last: Vec<u32> =
                    walked.take(self.rescored(search.k)).map(|candidate| candidate.slot).collect();
                found.extend(self.nearest_exactly(guard, scratch, last.into_iter(), search.k));
            } else {
                found.extend(walked.map(|c| Neighbor { label: nodes.label(c.slot), distance: c.distance }));
            }
        }
        // A vector linked between scan and walk was found twice.
        found.sort_by(order);
        found.dedup_by_key(|neighbor| neighbor.label);
        let matches = search.allowed.map_or(usize::MAX, |allowed| allowed.len() as usize);
        let expected = search.k.min(self.vectors_count()).min(matches);
        found.truncate(search.k);
        (found.len() >= expected).then_some(found)
    }

    /// Compares with every vector, or with every allowed one.
    fn scan(&self, guard: &Guard<'_>, scratch: &mut Scratch, search: &SearchParams<'_>) -> Vec<Neighbor> {
        let end = self.vectors.rows.end();
        let nodes = &self.vectors.nodes;
        let mut of = |slots: &mut dyn Iterator<Item = u32>| match search.exact {
            true => self.nearest_exactly(guard, scratch, slots, search.k),
            false => self.nearest(guard, scratch, slots, search.k),
        };
        match search.allowed {
            // The vectors the labels have at the moment they are met.
            Some(allowed) if allowed.len() < u64::from(end) => {
                of(&mut self.labels.slots(allowed.iter()).filter_map(|(label, slot)| {
                    // A row that has gone was replaced since its slot was looked up.
                    let slot = guard.row(slot).map(|_| slot);
                    slot.or_else(|| Some(self.row_of(guard, label)?.0))
                }))
            }
            allowed => {
                let counts = |slot: &u32| {
                    nodes.is_visible(*slot, guard.epoch())
                        && allowed.is_none_or(|allowed| allowed.contains(nodes.label(*slot)))
                };
                of(&mut (0..end).filter(counts))
            }
        }
    }

    /// The `k` nearest of the slots. All are scored as walks do, and the last of them exactly.
    fn nearest(
        &self,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        slots: impl Iterator<Item = u32>,
        k: usize,
    ) -> Vec<Neighbor> {
        if !self.vectors.codec.is_quantized() {
            return self.nearest_exactly(guard, scratch, slots, k);
        }
        let mut last = TopK::new(self.rescored(k));
        each_batch(slots, Batch::new(&self.vectors, guard), |batch| {
            batch.score(&mut scratch.query);
            batch.scored().for_each(|(slot, distance)| last.offer(slot, distance));
        });
        let last = last.into_sorted().into_iter().map(|found| found.label);
        self.nearest_exactly(guard, scratch, last, k)
    }

    /// How many of the candidates of a search for `k` are scored by all that their rows hold.
    fn rescored(&self, k: usize) -> usize {
        let more = k.max(RESCORED_MORE_MIN).saturating_mul(self.vectors.codec.spread());
        k.saturating_add(more)
    }

    /// The `k` nearest of the slots, by all that their rows hold.
    fn nearest_exactly(
        &self,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        slots: impl Iterator<Item = u32>,
        k: usize,
    ) -> Vec<Neighbor> {
        let mut best = TopK::new(k);
        each_batch(slots, Batch::new(&self.vectors, guard), |batch| {
            batch.score_exactly(&mut scratch.query);
            let scored = batch.scored();
            scored.for_each(|(slot, distance)| best.offer(self.vectors.nodes.label(slot), distance));
        });
        best.into_sorted()
    }
}

/// Takes the slots some at a time.
fn each_batch<'a>(
    slots: impl Iterator<Item = u32>,
    mut batch: Batch<'a>,
    mut each: impl FnMut(&mut Batch<'a>),
) {
    let mut slots = slots.peekable();
    while slots.peek().is_some() {
        batch.clear();
        slots.by_ref().take(BATCH).for_each(|slot| batch.add(slot));
        each(&mut batch);
    }
}
