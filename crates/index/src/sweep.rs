//! Taking the dead out of the graph.

use std::collections::HashSet;

use kernels::arena::Guard;

use crate::graph::{Entry, Graph, nearest_first};
use crate::nodes::State;
use crate::select::select;
use crate::vectors::Vectors;

/// Detours looked at beyond which a list is not mended any better.
const DETOURS_MAX: usize = 128;

impl Graph {
    /// Takes `dead` out: whoever links to one of them links to where it led instead
    /// (FreshDiskANN, Singh et al. 2021, algorithm 4). On return no link leads to them. They
    /// are all linked, and no reader, now or later, sees them as living.
    pub(crate) fn unlink(&self, vectors: &Vectors, dead: &HashSet<u32>) {
        {
            // Insertions that run might still link to the dead; those that come later will not.
            let _inserting = self.inserting.write();
            if self.entry().is_some_and(|entry| dead.contains(&entry.slot)) {
                self.set_entry(self.highest(vectors, dead));
            }
        }
        let guard = vectors.rows.pin();
        let end = vectors.rows.end();
        let mut reached = vec![false; end as usize];
        let mut linked = Vec::new();
        for slot in (0..end).filter(|&slot| self.is_left(vectors, dead, slot)) {
            for layer in 0..=self.links.level(slot) {
                if self.links.get(slot, layer).any(|link| dead.contains(&link)) {
                    self.mend(vectors, &guard, dead, slot, layer);
                }
            }
            for link in self.links.get(slot, 0) {
                if let Some(reached) = reached.get_mut(link as usize) {
                    *reached = true;
                }
            }
            linked.push(slot);
        }
        // Whom only the dead led to: its neighbours lead to it now.
        for slot in linked.into_iter().filter(|&slot| !reached[slot as usize]) {
            let neighbors: Vec<u32> =
                self.links.get(slot, 0).filter(|link| vectors.nodes.is_live(*link)).collect();
            for neighbor in neighbors {
                self.link_back(vectors, &guard, neighbor, slot, 0);
            }
        }
    }

    /// The living slot to begin walks at. No insertion runs.
    fn highest(&self, vectors: &Vectors, dead: &HashSet<u32>) -> Option<Entry> {
        let slots = (0..vectors.rows.end()).filter(|&slot| self.is_left(vectors, dead, slot));
        let entries = slots.map(|slot| Entry { slot, level: self.links.level(slot) });
        entries.max_by_key(|entry| (vectors.nodes.is_live(entry.slot), entry.level))
    }

    fn is_left(&self, vectors: &Vectors, dead: &HashSet<u32>, slot: u32) -> bool {
        vectors.nodes.state(slot) == State::Linked && !dead.contains(&slot)
    }

    /// Replaces links to the dead by links to what lies behind them.
    fn mend(&self, vectors: &Vectors, guard: &Guard<'_>, dead: &HashSet<u32>, slot: u32, layer: usize) {
        let _locked = self.links.lock(slot);
        let (mut behind, mut left): (Vec<u32>, Vec<u32>) =
            self.links.get(slot, layer).partition(|link| dead.contains(link));
        let mut met: HashSet<u32> = behind.iter().chain(&left).copied().chain([slot]).collect();
        let mut detours = 0;
        let mut at = 0;
        while at < behind.len() && detours < DETOURS_MAX {
            for link in self.links.get(behind[at], layer).filter(|&link| met.insert(link)) {
                if dead.contains(&link) {
                    behind.push(link);
                } else if vectors.nodes.is_live(link) {
                    detours += 1;
                    left.push(link);
                }
            }
            at += 1;
        }
        let candidates = nearest_first(vectors, guard, slot, left);
        self.links.set(slot, layer, &select(vectors, guard, &candidates, self.links.capacity(layer)));
    }
}
