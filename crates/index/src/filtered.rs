//! Filtered search in the graph.

use kernels::arena::Guard;
use roaring::RoaringBitmap;

use crate::batch::ScoreBatch;
use crate::graph::{BudgetExceeded, Graph};
use crate::nodes::SlotState;
use crate::scratch::{Scratch, SlotSet};
use crate::vectors::Vectors;
use crate::{Index, NONE};

/// If at least this share of the vectors is allowed, the search traverses all nodes and filters the results.
const TRAVERSE_ALL_SHARE: f64 = 0.35;
/// With at least this share it does so if the reduced `ef` is at least `k`.
const TRAVERSE_ALL_SHARE_MIN: f64 = 0.15;
/// With at least this share it does so if, in addition, the allowed vectors are randomly distributed. If they are
/// clustered, they are far from most queries, and a traversal visits many other nodes first.
const TRAVERSE_ALL_RANDOM_SHARE_MIN: f64 = 0.02;
/// The allowed vectors count as randomly distributed if the share of allowed slots among their neighbours is at most
/// this many times their share of all slots.
const RANDOM_RATIO_MAX: f64 = 2.0;
/// Neighbours of an allowed slot that are sampled to estimate the distribution: half a cache line of links.
const SAMPLED_LINKS: usize = 8;
/// A bitmap of the allowed slots is built if their number times their share is at most this many per candidate: the
/// smaller the share, the more slots a search has to test.
const BITMAP_PER_CANDIDATE: f64 = 32.0;
/// Number of allowed slots, spread over the set, at which a search of the allowed nodes begins, besides the slot
/// nearest to the query: all allowed vectors may be far from the query.
const STARTS: u32 = 16;
/// Number of lists that are prefetched ahead of the one being read.
const PREFETCHED_LISTS: usize = 8;

impl Index {
    /// Collects the nearest allowed slots that satisfy `is_match` in `scratch.candidates`, by the method that suits
    /// the share of allowed vectors. Keeps `ef` of them, or fewer (but at least `ef_min`) if all nodes are traversed,
    /// which needs fewer for the same recall. The budget is the number of allowed vectors.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `Graph::search_layer`")]
    pub(crate) fn search_filtered(
        &self,
        graph: &Graph,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        start: u32,
        ef: usize,
        ef_min: usize,
        allowed: &RoaringBitmap,
        is_match: impl Fn(u32) -> bool,
    ) -> Result<(), BudgetExceeded> {
        let Index { vectors, .. } = self;
        let budget = allowed.len() as usize;
        let share = budget as f64 / self.vectors_count().max(1) as f64;
        // A traversal of all nodes that keeps n matches covers as much of the graph as an unfiltered one with
        // ef = n / share. ef * sqrt(share) matches are enough for the recall of an unfiltered search.
        let reduced_ef = (ef as f64 * share.min(1.0).sqrt()) as usize;
        let is_suitable = || match share {
            TRAVERSE_ALL_SHARE_MIN.. => true,
            TRAVERSE_ALL_RANDOM_SHARE_MIN.. => {
                self.allowed_neighbor_share(graph, allowed, &is_match) <= RANDOM_RATIO_MAX * share
            }
            _ => false,
        };
        if share >= TRAVERSE_ALL_SHARE || (reduced_ef >= ef_min && is_suitable()) {
            return graph.search_layer(
                vectors,
                guard,
                scratch,
                start,
                0,
                reduced_ef.max(ef_min),
                budget,
                is_match,
            );
        }
        let is_start = |&slot: &u32| slot != start && vectors.nodes.state(slot) == SlotState::Linked;
        let starts = std::iter::once(start).chain(self.sample(allowed).filter(is_start));
        let is_bitmap_cheaper = budget as f64 * share <= BITMAP_PER_CANDIDATE * ef as f64;
        if is_bitmap_cheaper && self.mark_allowed(allowed, guard.epoch(), &mut scratch.allowed) {
            let is_match = |marked: &SlotSet, slot: u32| marked.contains(slot);
            graph.search_layer_filtered(vectors, guard, scratch, starts, ef, budget, is_match)
        } else {
            let is_match = |_: &SlotSet, slot: u32| is_match(slot);
            graph.search_layer_filtered(vectors, guard, scratch, starts, ef, budget, is_match)
        }
    }

    /// A sample of the allowed slots, spread evenly over the set.
    fn sample(&self, allowed: &RoaringBitmap) -> impl Iterator<Item = u32> {
        let ranks = (0..STARTS).map(|at| (allowed.len() * u64::from(at) / u64::from(STARTS)) as u32);
        let labels = ranks.filter_map(|rank| allowed.select(rank));
        labels.map(|label| self.labels.slot(label)).filter(|&slot| slot != NONE)
    }

    /// The share of allowed slots among the neighbours of a sample of the allowed slots.
    fn allowed_neighbor_share(
        &self,
        graph: &Graph,
        allowed: &RoaringBitmap,
        is_match: impl Fn(u32) -> bool,
    ) -> f64 {
        let is_linked = |slot: &u32| self.vectors.nodes.state(*slot) == SlotState::Linked;
        let sampled = self.sample(allowed).filter(is_linked);
        let neighbors = sampled.flat_map(|slot| graph.links.get(slot, 0).take(SAMPLED_LINKS));
        let (mut found, mut all) = (0, 0);
        for slot in neighbors {
            found += u32::from(is_match(slot));
            all += 1;
        }
        f64::from(found) / f64::from(all.max(1))
    }

    /// Builds the set of slots of the allowed labels. `false` if one of them was inserted after `epoch`: a reader
    /// pinned at that epoch may see another slot of the label.
    fn mark_allowed(&self, allowed: &RoaringBitmap, epoch: u64, marked: &mut SlotSet) -> bool {
        marked.reset(self.vectors.rows.end());
        let mut is_older = self.vectors.nodes.inserted_by(epoch);
        self.labels.slots(allowed.iter()).all(|(_, slot)| marked.insert(slot) && is_older(slot))
    }
}

impl Graph {
    /// Collects the `ef` nearest allowed slots in `scratch.candidates`. Follows the links of layer 0 between allowed
    /// slots and, where there are few, the two-hop links through a slot that is not allowed (ACORN-1: Patel et al.
    /// 2024, section 5.2). Scores only allowed slots and the starting points.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `Graph::search_layer`")]
    pub(crate) fn search_layer_filtered(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        starts: impl Iterator<Item = u32>,
        ef: usize,
        mut budget: usize,
        is_allowed: impl Fn(&SlotSet, u32) -> bool,
    ) -> Result<(), BudgetExceeded> {
        let Scratch { query, visited, candidates, filtered_out, two_hop, allowed } = scratch;
        let mut batch = ScoreBatch::new(vectors, guard);
        let is_allowed = |slot: u32| is_allowed(allowed, slot);
        let batch_target = self.links.capacity(0) * 3 / 4;
        candidates.reset(ef);
        visited.reset();
        starts.filter(|&slot| visited.insert(slot)).for_each(|slot| batch.add(slot));
        loop {
            batch.score(query);
            for (slot, distance) in batch.scored() {
                if candidates.accepts(distance) {
                    candidates.insert(distance, slot, is_allowed(slot));
                }
            }
            let scored = batch.len();
            if scored > budget {
                return Err(BudgetExceeded);
            }
            budget -= scored;
            let Some(slot) = candidates.expand_nearest() else { return Ok(()) };
            batch.clear();
            filtered_out.clear();
            for link in self.links.get(slot, 0) {
                if visited.contains(link) {
                    continue;
                }
                if is_allowed(link) {
                    visited.insert(link);
                    batch.add(link);
                } else {
                    filtered_out.push(link);
                }
            }
            filtered_out.iter().take(PREFETCHED_LISTS).for_each(|&slot| self.links.prefetch(slot, 0));
            for at in 0..filtered_out.len() {
                if batch.len() >= batch_target {
                    break;
                }
                if let Some(&slot) = filtered_out.get(at + PREFETCHED_LISTS) {
                    self.links.prefetch(slot, 0);
                }
                visited.insert(filtered_out[at]);
                let links = self.links.get(filtered_out[at], 0);
                let is_next = |link: &u32| !visited.contains(*link) && is_allowed(*link);
                two_hop.clear();
                two_hop.extend(links.filter(is_next));
                for &link in &*two_hop {
                    visited.insert(link);
                    batch.add(link);
                }
            }
        }
    }
}
