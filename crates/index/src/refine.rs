//! Choosing links again, when the whole graph is there to choose from.
//!
//! A vector that came early found its neighbours among few. Searching for it once more and
//! choosing anew among all that are near (the second pass of Vamana: Subramanya et al. 2019, "DiskANN",
//! section 2.4) leaves a graph in which the same recall takes fewer distances.

use crate::Index;
use crate::batch::Batch;
use crate::graph::Graph;
use crate::nodes::State;
use crate::scratch;
use crate::select::select;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vectors::Vectors;

/// Candidates of a vector, besides the links it has.
const EF_REFINE: usize = 200;
/// One in this many vectors must have been linked since the last pass began for another to begin:
/// so the passes take at most so many searches a vector that is linked.
const PASS_SHARE: usize = 8;
/// As many at least.
const PASS_MIN: usize = if cfg!(feature = "shuttle") { 1 } else { 256 };

/// A pass over all slots there were when it began.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    next: u32,
    end: u32,
}

impl Index {
    /// Chooses the links of up to `max` vectors anew and says of how many; 0 if the graph is as
    /// good as it gets, until it has grown, or another thread is at it. For a background thread
    /// that has nothing to drain.
    pub fn refine(&self, max: usize) -> usize {
        let Some(graph) = &self.graph else { return 0 };
        let Some(mut pass) = graph.refining.try_lock() else { return 0 };
        if pass.next == pass.end {
            let unrefined = graph.unrefined.load(Relaxed);
            if unrefined < PASS_MIN.max(self.vectors_count() / PASS_SHARE) {
                return 0;
            }
            graph.unrefined.fetch_sub(unrefined, Relaxed);
            *pass = Pass { next: 0, end: self.vectors.rows.end() };
        }
        let nodes = &self.vectors.nodes;
        let mut refined = 0;
        while refined < max && pass.next < pass.end {
            // As an insertion does, so that whoever waits for those waits for this.
            let _inserting = graph.inserting.read();
            if nodes.state(pass.next) == State::Linked && nodes.is_live(pass.next) {
                graph.refine(&self.vectors, pass.next);
                refined += 1;
            }
            pass.next += 1;
        }
        refined
    }

    /// Vectors whose links no pass has chosen anew, about; what a snapshot remembers of passes.
    pub(crate) fn unrefined(&self) -> usize {
        let Some(graph) = &self.graph else { return 0 };
        let unrefined = graph.unrefined.load(Relaxed);
        // A pass that runs, or that whoever has the lock is at, begins again.
        match graph.refining.try_lock() {
            Some(pass) if pass.next == pass.end => unrefined,
            _ => self.vectors_count(),
        }
    }
}

impl Graph {
    /// Chooses the links of a living slot on the lowest layer anew. The caller holds `inserting`.
    fn refine(&self, vectors: &Vectors, slot: u32) {
        let guard = vectors.rows.pin();
        // Its links may be the only ones that lead a search that runs to what has died since that began.
        let oldest = vectors.rows.epochs().oldest();
        let counts = |other: u32| other != slot && vectors.nodes.is_wanted(other, oldest);
        let added: Vec<u32> = scratch::with(|scratch| {
            let Some(entry) = self.entry() else { return Vec::new() };
            if !vectors.prepare(&guard, slot, &mut scratch.query) {
                return Vec::new();
            }
            let start = self.descend(vectors, &guard, scratch, entry, 0);
            self.search_layer(vectors, &guard, scratch, start, 0, EF_REFINE, usize::MAX, counts)
                .expect("a walk without a budget ends by itself");
            let mut candidates: Vec<(f32, u32)> =
                scratch.candidates.found().map(|found| (found.distance, found.slot)).collect();

            let _locked = self.links.lock(slot);
            let before: Vec<u32> = self.links.get(slot, 0).collect();
            let is_new = |link: &u32| counts(*link) && candidates.iter().all(|(_, slot)| slot != link);
            let mut batch = Batch::new(vectors, &guard);
            before.iter().copied().filter(is_new).for_each(|link| batch.add(link));
            batch.score(&mut scratch.query);
            candidates.extend(batch.scored().map(|(slot, distance)| (distance, slot)));
            candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let chosen = select(vectors, &guard, &candidates, self.links.capacity(0));
            self.links.set(slot, 0, &chosen);
            chosen.into_iter().filter(|link| !before.contains(link)).collect()
        });
        for link in added {
            self.link_back(vectors, &guard, link, slot, 0);
        }
    }
}
