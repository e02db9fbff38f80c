//! Lists of links, some of which lead to the dead.

use kernels::arena::Guard;

use crate::graph::{Graph, nearest_first};
use crate::scratch::{self, Scratch, Slots, Visited};
use crate::select::select;
use crate::vectors::Vectors;

/// Detours looked at beyond which a list is not mended any better.
const DETOURS_MAX: usize = 128;
/// A list is torn if for this many or fewer that live one it leads to is dead.
const TORN_SHARE: usize = 4;

/// Who are dead, and where to find what is behind them.
pub(crate) struct LinkRepair<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) vectors: &'a Vectors,
    pub(crate) guard: &'a Guard<'a>,
    pub(crate) dead: &'a Slots,
}

impl LinkRepair<'_> {
    /// Replaces the links of a slot to the dead by links to what lies behind them, and back.
    pub(crate) fn list(&self, slot: u32, layer: usize) {
        let LinkRepair { graph, vectors, guard, dead } = *self;
        let (is_torn, added) = scratch::with(|Scratch { visited, .. }| {
            let _locked = graph.links.lock(slot);
            let (behind, left): (Vec<u32>, Vec<u32>) =
                graph.links.get(slot, layer).partition(|link| dead.contains(*link));
            let is_torn = behind.len() * TORN_SHARE >= left.len();
            visited.reset();
            for &met in [slot].iter().chain(&behind).chain(&left) {
                visited.insert(met);
            }
            let mut detours = self.detours(visited, behind, layer);
            if is_torn {
                detours.extend(self.around(visited, &left, layer));
            }
            let candidates = nearest_first(vectors, guard, slot, [&left[..], &detours].concat());
            let chosen = select(vectors, guard, &candidates, graph.links.capacity(layer));
            graph.links.set(slot, layer, &chosen);
            let added: Vec<u32> = chosen.into_iter().filter(|link| !left.contains(link)).collect();
            (is_torn, added)
        });
        for link in added {
            if is_torn {
                graph.link_back(vectors, guard, link, slot, layer);
            } else {
                // A full list is better left as it is than chosen anew for one: this is most of the work.
                graph.offer_link(link, slot, layer);
            }
        }
    }

    /// What may take the place of the dead: the living to which they lead, if need be through further dead.
    fn detours(&self, visited: &mut Visited, mut behind: Vec<u32>, layer: usize) -> Vec<u32> {
        let mut detours = Vec::new();
        let mut at = 0;
        while at < behind.len() && detours.len() < DETOURS_MAX {
            for link in self.graph.links.get(behind[at], layer).filter(|&link| visited.insert(link)) {
                if self.dead.contains(link) {
                    behind.push(link);
                } else if self.vectors.nodes.is_live(link) {
                    detours.push(link);
                }
            }
            at += 1;
        }
        detours
    }

    /// More, for a list that is torn: the living to which those `left` lead.
    fn around(&self, visited: &mut Visited, left: &[u32], layer: usize) -> Vec<u32> {
        let links = left.iter().flat_map(|&near| self.graph.links.get(near, layer));
        links
            .filter(|&link| visited.insert(link))
            .filter(|&link| !self.dead.contains(link) && self.vectors.nodes.is_live(link))
            .collect()
    }
}
