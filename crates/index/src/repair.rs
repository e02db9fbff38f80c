//! Repair of lists that contain links to removed slots.

use kernels::arena::Guard;

use crate::graph::{Graph, sort_by_distance};
use crate::scratch::{self, Scratch, SlotSet, VisitedSet};
use crate::select::select_neighbors;
use crate::vectors::Vectors;

/// Maximum number of replacement candidates. More do not improve the repaired list.
const REPLACEMENTS_MAX: usize = 128;
/// A list is damaged if it has at most this many other links per link to a removed slot.
const DAMAGED_SHARE: usize = 4;

/// The removed slots, and the data to repair the lists that link to them.
pub(crate) struct LinkRepair<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) vectors: &'a Vectors,
    pub(crate) guard: &'a Guard<'a>,
    pub(crate) dead: &'a SlotSet,
}

impl LinkRepair<'_> {
    /// Replaces the links of a slot to removed slots by links to the live neighbours of those slots, in both
    /// directions.
    pub(crate) fn repair_list(&self, slot: u32, layer: usize) {
        let LinkRepair { graph, vectors, guard, dead } = *self;
        let (is_damaged, added) = scratch::with(|Scratch { visited, .. }| {
            let _locked = graph.links.lock(slot);
            let (dead_links, kept): (Vec<u32>, Vec<u32>) =
                graph.links.get(slot, layer).partition(|link| dead.contains(*link));
            let is_damaged = dead_links.len() * DAMAGED_SHARE >= kept.len();
            visited.reset();
            for &near in [slot].iter().chain(&dead_links).chain(&kept) {
                visited.insert(near);
            }
            let mut replacements = self.replacements(visited, dead_links, layer);
            if is_damaged {
                replacements.extend(self.neighbors_of_neighbors(visited, &kept, layer));
            }
            let candidates = sort_by_distance(vectors, guard, slot, [&kept[..], &replacements].concat());
            let selected = select_neighbors(vectors, guard, &candidates, graph.links.capacity(layer));
            graph.links.set(slot, layer, &selected);
            let added: Vec<u32> = selected.into_iter().filter(|link| !kept.contains(link)).collect();
            (is_damaged, added)
        });
        for link in added {
            if is_damaged {
                graph.add_reverse_link(vectors, guard, link, slot, layer);
            } else {
                // Selecting the links of a full list again is too expensive for a single link.
                graph.add_link_unless_full(link, slot, layer);
            }
        }
    }

    /// Candidates to replace links to removed slots: the live slots to which the removed slots link, directly or
    /// through further removed slots.
    fn replacements(&self, visited: &mut VisitedSet, mut dead_links: Vec<u32>, layer: usize) -> Vec<u32> {
        let mut replacements = Vec::new();
        let mut at = 0;
        while at < dead_links.len() && replacements.len() < REPLACEMENTS_MAX {
            for link in self.graph.links.get(dead_links[at], layer).filter(|&link| visited.insert(link)) {
                if self.dead.contains(link) {
                    dead_links.push(link);
                } else if self.vectors.nodes.is_live(link) {
                    replacements.push(link);
                }
            }
            at += 1;
        }
        replacements
    }

    /// Further candidates for a damaged list: the live neighbours of the links that are kept.
    fn neighbors_of_neighbors(&self, visited: &mut VisitedSet, kept: &[u32], layer: usize) -> Vec<u32> {
        let links = kept.iter().flat_map(|&near| self.graph.links.get(near, layer));
        links
            .filter(|&link| visited.insert(link))
            .filter(|&link| !self.dead.contains(link) && self.vectors.nodes.is_live(link))
            .collect()
    }
}
