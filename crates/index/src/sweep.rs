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

    /// Replaces links to the dead by links to what lies behind them, and back.
    fn mend(&self, vectors: &Vectors, guard: &Guard<'_>, dead: &HashSet<u32>, slot: u32, layer: usize) {
        let added: Vec<u32> = {
            let _locked = self.links.lock(slot);
            let (behind, left): (Vec<u32>, Vec<u32>) =
                self.links.get(slot, layer).partition(|link| dead.contains(link));
            let detours = self.detours(vectors, dead, behind, &left, slot, layer);
            let candidates = nearest_first(vectors, guard, slot, [&left[..], &detours].concat());
            let chosen = select(vectors, guard, &candidates, self.links.capacity(layer));
            self.links.set(slot, layer, &chosen);
            chosen.into_iter().filter(|link| !left.contains(link)).collect()
        };
        for link in added {
            self.link_back(vectors, guard, link, slot, layer);
        }
    }

    /// What may take the place of the dead `behind` the links of `slot`: the living to which they
    /// lead, if need be through further dead, and, where the dead are a good part of the list,
    /// the living to which those `left` lead.
    fn detours(
        &self,
        vectors: &Vectors,
        dead: &HashSet<u32>,
        mut behind: Vec<u32>,
        left: &[u32],
        slot: u32,
        layer: usize,
    ) -> Vec<u32> {
        let mut met: HashSet<u32> = behind.iter().chain(left).copied().chain([slot]).collect();
        let mut detours = Vec::new();
        let mut at = 0;
        while at < behind.len() && detours.len() < DETOURS_MAX {
            for link in self.links.get(behind[at], layer).filter(|&link| met.insert(link)) {
                if dead.contains(&link) {
                    behind.push(link);
                } else if vectors.nodes.is_live(link) {
                    detours.push(link);
                }
            }
            at += 1;
        }
        if at * 4 >= left.len() {
            for &near in left {
                let links = self.links.get(near, layer).filter(|&link| met.insert(link));
                detours.extend(links.filter(|link| !dead.contains(link) && vectors.nodes.is_live(*link)));
            }
        }
        detours
    }
}
