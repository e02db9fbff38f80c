//! Refinement: selecting the links of a vector again once the whole graph exists.
//!
//! The neighbours of a vector that was inserted early were selected from few candidates. Searching for the vector
//! again and selecting from all near vectors (the second pass of Vamana: Subramanya et al. 2019, "DiskANN", section
//! 2.4) yields a graph that reaches the same recall with fewer distance computations.

use crate::Index;
use crate::batch::ScoreBatch;
use crate::graph::Graph;
use crate::nodes::SlotState;
use crate::scratch;
use crate::select::select_neighbors;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vectors::Vectors;

/// Number of candidates per vector, in addition to its current links.
const EF: usize = 200;
/// A pass begins when this fraction (1 / n) of the vectors was linked since the last pass began, so refinement costs
/// at most n searches per linked vector.
const PASS_SHARE: usize = 8;
/// A pass begins only if at least this many vectors were linked since the last pass began.
const PASS_MIN: usize = if cfg!(feature = "shuttle") { 1 } else { 256 };

/// A pass over all slots that existed when it began.
#[derive(Debug, Default)]
pub(crate) struct RefinePass {
    next: u32,
    end: u32,
}

impl Index {
    /// Selects the links of up to `max` vectors again, and returns the number of vectors. Returns 0 if too few
    /// vectors were linked since the last pass, or if another thread is refining. Meant for a background thread
    /// whose tail is empty.
    pub fn refine(&self, max: usize) -> usize {
        let Some(graph) = &self.graph else { return 0 };
        let Some(mut pass) = graph.refine_pass.try_lock() else { return 0 };
        if pass.next == pass.end {
            let unrefined = graph.unrefined.load(Relaxed);
            if unrefined < PASS_MIN.max(self.vectors_count() / PASS_SHARE) {
                return 0;
            }
            graph.unrefined.fetch_sub(unrefined, Relaxed);
            *pass = RefinePass { next: 0, end: self.vectors.rows.end() };
        }
        let nodes = &self.vectors.nodes;
        let mut refined = 0;
        while refined < max && pass.next < pass.end {
            // Held as by an insertion, because waiting for insertions must also wait for refinement.
            let _insertion = graph.insertions.read();
            if nodes.state(pass.next) == SlotState::Linked && nodes.is_live(pass.next) {
                graph.refine(&self.vectors, pass.next);
                refined += 1;
            }
            pass.next += 1;
        }
        refined
    }

    /// Approximate number of vectors that are not refined. A snapshot stores it.
    pub(crate) fn unrefined(&self) -> usize {
        let Some(graph) = &self.graph else { return 0 };
        let unrefined = graph.unrefined.load(Relaxed);
        // A pass in progress starts over after loading.
        match graph.refine_pass.try_lock() {
            Some(pass) if pass.next == pass.end => unrefined,
            _ => self.vectors_count(),
        }
    }
}

impl Graph {
    /// Selects the links of a live slot on layer 0 again. The caller holds `insertions`.
    fn refine(&self, vectors: &Vectors, slot: u32) {
        let guard = vectors.rows.pin();
        // Its links may be the only ones that lead a running search to vectors removed since that search began.
        let oldest = vectors.rows.epochs().oldest();
        let is_match = |other: u32| other != slot && vectors.nodes.may_be_visible(other, oldest);
        let added: Vec<u32> = scratch::with(|scratch| {
            let Some(entry) = self.entry_point() else { return Vec::new() };
            if !vectors.prepare(&guard, slot, &mut scratch.query) {
                return Vec::new();
            }
            let start = self.descend(vectors, &guard, scratch, entry, 0);
            self.search_layer(vectors, &guard, scratch, start, 0, EF, usize::MAX, is_match)
                .expect("a search without a budget does not exceed it");
            let mut candidates: Vec<(f32, u32)> =
                scratch.candidates.matches().map(|found| (found.distance, found.slot)).collect();

            let _locked = self.links.lock(slot);
            let before: Vec<u32> = self.links.get(slot, 0).collect();
            let is_new = |link: &u32| is_match(*link) && candidates.iter().all(|(_, slot)| slot != link);
            let mut batch = ScoreBatch::new(vectors, &guard);
            before.iter().copied().filter(is_new).for_each(|link| batch.add(link));
            batch.score(&mut scratch.query);
            candidates.extend(batch.scored().map(|(slot, distance)| (distance, slot)));
            candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let selected = select_neighbors(vectors, &guard, &candidates, self.links.capacity(0));
            self.links.set(slot, 0, &selected);
            selected.into_iter().filter(|link| !before.contains(link)).collect()
        });
        for link in added {
            self.add_reverse_link(vectors, &guard, link, slot, 0);
        }
    }
}
