//! Search: by scanning rows or by traversing the graph, with or without a filter.

use kernels::arena::Guard;
use roaring::RoaringBitmap;

use crate::batch::ScoreBatch;
use crate::graph::Graph;
use crate::scratch::{self, Scratch};
use crate::top_k::{TopK, by_distance};
use crate::{Index, Neighbor, SearchParams};

/// Number of rows that a scan scores together.
const SCAN_BATCH: usize = 32;
/// A filtered search scans the allowed rows if there are at most this many per candidate that a graph search
/// would keep. The scan then costs no more than a filtered graph search, and less than three times an unfiltered
/// one (measured on sentence embeddings).
const SCAN_ROWS_PER_CANDIDATE: usize = 96;
/// A search of quantised vectors rescores at least this many candidates beyond `k`.
const RESCORE_EXTRA_MIN: usize = 10;

impl Index {
    /// The `search.k` nearest allowed vectors, nearest first, equal distances in order of their labels; fewer
    /// only if fewer exist. The caller has validated the query with [`check`](crate::check).
    ///
    /// # Panics
    ///
    /// If the dimension of the query is not that of the index.
    pub fn search(&self, query: &[f32], search: &SearchParams<'_>) -> Vec<Neighbor> {
        if search.k == 0 || search.allowed.is_some_and(RoaringBitmap::is_empty) {
            return Vec::new();
        }
        scratch::with(|scratch| {
            self.vectors.codec.prepare(query, &mut scratch.query);
            let guard = self.vectors.rows.pin();
            let from_graph = match &self.graph {
                Some(graph) if !search.exact && !self.scan_is_cheaper(search) => {
                    self.search_graph(graph, &guard, scratch, search)
                }
                _ => None,
            };
            from_graph.unwrap_or_else(|| self.scan(&guard, scratch, search))
        })
    }

    /// Whether scanning all allowed rows costs no more than searching the graph.
    fn scan_is_cheaper(&self, search: &SearchParams<'_>) -> bool {
        let rows_max = SCAN_ROWS_PER_CANDIDATE.saturating_mul(search.ef.max(search.k)) as u64;
        search.allowed.is_some_and(|allowed| allowed.len() <= rows_max)
    }

    /// Searches the graph and scans the tail. `None` if that finds too few vectors or costs more than a scan.
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
        // The tail comes first: a vector that leaves it in the meantime is in the graph before the graph is searched.
        let tail = self.tail.iter(nodes).filter(|slot| is_visible(slot) && is_allowed(*slot));
        let mut found = self.nearest(guard, scratch, tail, search.k);
        if let Some(entry) = graph.entry_point() {
            let start = graph.descend(&self.vectors, guard, scratch, entry, 0);
            let ef = search.ef.max(search.k);
            // Few vectors are inserted after the search has started, so this is checked once, at the end.
            let is_match = |slot: u32| (nodes.is_live(slot) || is_visible(&slot)) && is_allowed(slot);
            match search.allowed {
                Some(allowed) => {
                    self.search_filtered(graph, guard, scratch, start, ef, search.k, allowed, is_match)
                        .ok()?;
                }
                None => graph
                    .search_layer(&self.vectors, guard, scratch, start, 0, ef, usize::MAX, is_match)
                    .expect("a search without a budget does not exceed it"),
            }
            let visible = scratch.candidates.matches().filter(|candidate| is_visible(&candidate.slot));
            if self.vectors.codec.is_quantized() {
                let best: Vec<u32> =
                    visible.take(self.rescore_count(search.k)).map(|candidate| candidate.slot).collect();
                found.extend(self.nearest_exact(guard, scratch, best.into_iter(), search.k));
            } else {
                found.extend(visible.map(|c| Neighbor { label: nodes.label(c.slot), distance: c.distance }));
            }
        }
        // A vector that was linked between the two searches was found by both.
        found.sort_by(by_distance);
        found.dedup_by_key(|neighbor| neighbor.label);
        let matches = search.allowed.map_or(usize::MAX, |allowed| allowed.len() as usize);
        let expected = search.k.min(self.vectors_count()).min(matches);
        found.truncate(search.k);
        (found.len() >= expected).then_some(found)
    }

    /// Compares the query with all vectors, or with all allowed ones.
    fn scan(&self, guard: &Guard<'_>, scratch: &mut Scratch, search: &SearchParams<'_>) -> Vec<Neighbor> {
        let end = self.vectors.rows.end();
        let nodes = &self.vectors.nodes;
        let mut nearest = |slots: &mut dyn Iterator<Item = u32>| match search.exact {
            true => self.nearest_exact(guard, scratch, slots, search.k),
            false => self.nearest(guard, scratch, slots, search.k),
        };
        match search.allowed {
            // Uses the vector that each label has when the scan reaches it.
            Some(allowed) if allowed.len() < u64::from(end) => {
                nearest(&mut self.labels.slots(allowed.iter()).filter_map(|(label, slot)| {
                    // A missing row means that the vector was replaced after its slot was looked up.
                    let slot = guard.row(slot).map(|_| slot);
                    slot.or_else(|| Some(self.row_of(guard, label)?.0))
                }))
            }
            allowed => {
                let is_match = |slot: &u32| {
                    nodes.is_visible(*slot, guard.epoch())
                        && allowed.is_none_or(|allowed| allowed.contains(nodes.label(*slot)))
                };
                nearest(&mut (0..end).filter(is_match))
            }
        }
    }

    /// The `k` nearest of `slots`. Quantised rows are scored by their codes first, and the best are rescored.
    fn nearest(
        &self,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        slots: impl Iterator<Item = u32>,
        k: usize,
    ) -> Vec<Neighbor> {
        if !self.vectors.codec.is_quantized() {
            return self.nearest_exact(guard, scratch, slots, k);
        }
        let mut best = TopK::new(self.rescore_count(k));
        for_each_batch(slots, ScoreBatch::new(&self.vectors, guard), |batch| {
            batch.score(&mut scratch.query);
            batch.scored().for_each(|(slot, distance)| best.push(slot, distance));
        });
        // Slots were pushed as labels.
        let best = best.into_sorted().into_iter().map(|found| found.label);
        self.nearest_exact(guard, scratch, best, k)
    }

    /// Number of candidates that a search for `k` neighbours rescores.
    fn rescore_count(&self, k: usize) -> usize {
        let extra = k.max(RESCORE_EXTRA_MIN).saturating_mul(self.vectors.codec.rescore_factor());
        k.saturating_add(extra)
    }

    /// The `k` nearest of `slots`, scored at the full precision of their rows.
    fn nearest_exact(
        &self,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        slots: impl Iterator<Item = u32>,
        k: usize,
    ) -> Vec<Neighbor> {
        let mut best = TopK::new(k);
        for_each_batch(slots, ScoreBatch::new(&self.vectors, guard), |batch| {
            batch.score_exact(&mut scratch.query);
            let scored = batch.scored();
            scored.for_each(|(slot, distance)| best.push(self.vectors.nodes.label(slot), distance));
        });
        best.into_sorted()
    }
}

/// Calls `score` with the slots, [`SCAN_BATCH`] at a time.
fn for_each_batch<'a>(
    slots: impl Iterator<Item = u32>,
    mut batch: ScoreBatch<'a>,
    mut score: impl FnMut(&mut ScoreBatch<'a>),
) {
    let mut slots = slots.peekable();
    while slots.peek().is_some() {
        batch.clear();
        slots.by_ref().take(SCAN_BATCH).for_each(|slot| batch.add(slot));
        score(&mut batch);
    }
}
