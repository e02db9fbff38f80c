//! Walking to allowed vectors, among those that are not.

use kernels::arena::Guard;
use roaring::RoaringBitmap;

use crate::batch::Batch;
use crate::graph::{Graph, OutOfBudget};
use crate::nodes::State;
use crate::scratch::{Scratch, Slots};
use crate::vectors::Vectors;
use crate::{Index, NONE};

/// With a larger share than this allowed, a walk leads through those that are not.
const THROUGH_SHARE: f64 = 0.35;
/// With a larger share than this it does so if it is broad enough.
const THROUGH_SHARE_MIN: f64 = 0.15;
/// With a larger share than this it does so if they also lie at random: those that lie together are
/// far from most queries, and others in between have to be seen in great numbers.
const THROUGH_RANDOM_SHARE_MIN: f64 = 0.02;
/// Allowed slots count as lying at random if not many more of the slots beside them are allowed than of
/// all: so many times as many.
const RANDOM_RATIO_MAX: f64 = 2.0;
/// Slots looked at beside an allowed one to tell whether they lie at random: a cache line of links.
const BESIDE: usize = 8;
/// Marking the allowed slots before a walk pays if they, times their share, are at most so many for
/// each candidate: the smaller the share, the more slots a walk has to ask about.
const MARKED_PER_CANDIDATE: f64 = 32.0;
/// Where walks among the allowed begin, besides the slot nearest to the query: allowed ones far
/// apart, for all that are allowed may be far from the query.
const STARTS: u32 = 16;
/// Lists of links asked for ahead of the one being read.
const LISTS_AHEAD: usize = 8;

impl Index {
    /// Gathers nearest slots that are allowed and count into the scratch's candidates, in the way that
    /// suits their share: `ef` of them, or fewer, but `least` if there are so many, where walking
    /// through others already goes far enough. Gives up when it has scored as many as are allowed.
    #[expect(clippy::too_many_arguments, reason = "those of `Graph::walk`, which it decides on")]
    pub(crate) fn search_filtered(
        &self,
        graph: &Graph,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        start: u32,
        ef: usize,
        least: usize,
        allowed: &RoaringBitmap,
        counts: impl Fn(u32) -> bool,
    ) -> Result<(), OutOfBudget> {
        let Index { vectors, .. } = self;
        let budget = allowed.len() as usize;
        let share = budget as f64 / self.vectors_count().max(1) as f64;
        // To hold so many that are allowed a walk through the others goes as far as one that is
        // 1 / share as broad. The root of it is enough for the recall of a search without a filter.
        let through = (ef as f64 * share.min(1.0).sqrt()) as usize;
        let leads_there = || match share {
            THROUGH_SHARE_MIN.. => true,
            THROUGH_RANDOM_SHARE_MIN.. => {
                self.share_beside(graph, allowed, &counts) <= RANDOM_RATIO_MAX * share
            }
            _ => false,
        };
        if share >= THROUGH_SHARE || (through >= least && leads_there()) {
            return graph.search_layer(vectors, guard, scratch, start, 0, through.max(least), budget, counts);
        }
        let is_start = |&slot: &u32| slot != start && vectors.nodes.state(slot) == State::Linked;
        let starts = std::iter::once(start).chain(self.spread(allowed).filter(is_start));
        let pays = budget as f64 * share <= MARKED_PER_CANDIDATE * ef as f64;
        if pays && self.mark(allowed, guard.epoch(), &mut scratch.allowed) {
            let counts = |marked: &Slots, slot: u32| marked.contains(slot);
            graph.search_layer_filtered(vectors, guard, scratch, starts, ef, budget, counts)
        } else {
            let counts = |_: &Slots, slot: u32| counts(slot);
            graph.search_layer_filtered(vectors, guard, scratch, starts, ef, budget, counts)
        }
    }

    /// Some of the allowed slots, spread over them.
    fn spread(&self, allowed: &RoaringBitmap) -> impl Iterator<Item = u32> {
        let ranks = (0..STARTS).map(|at| (allowed.len() * u64::from(at) / u64::from(STARTS)) as u32);
        let labels = ranks.filter_map(|rank| allowed.select(rank));
        labels.map(|label| self.labels.slot(label)).filter(|&slot| slot != NONE)
    }

    /// The share of allowed slots among those that some of the allowed link to.
    fn share_beside(&self, graph: &Graph, allowed: &RoaringBitmap, counts: impl Fn(u32) -> bool) -> f64 {
        let is_linked = |slot: &u32| self.vectors.nodes.state(*slot) == State::Linked;
        let some = self.spread(allowed).filter(is_linked);
        let beside = some.flat_map(|slot| graph.links.get(slot, 0).take(BESIDE));
        let (mut found, mut all) = (0, 0);
        for slot in beside {
            found += u32::from(counts(slot));
            all += 1;
        }
        f64::from(found) / f64::from(all.max(1))
    }

    /// Marks the slots that allowed labels have; `false` if one came after `epoch`, so that a
    /// reader pinned there may see another.
    fn mark(&self, allowed: &RoaringBitmap, epoch: u64, marked: &mut Slots) -> bool {
        marked.reset(self.vectors.rows.end());
        let mut is_older = self.vectors.nodes.are_older(epoch);
        self.labels.slots(allowed.iter()).all(|(_, slot)| marked.insert(slot) && is_older(slot))
    }
}

impl Graph {
    /// Gathers the `ef` allowed slots nearest to the query into the scratch's candidates, over the
    /// lowest layer's links between allowed slots and, where these are few, over those that lead
    /// there by one slot that is not allowed (ACORN-1: Patel et al. 2024, section 5.2). Scores
    /// none but the allowed, and where it starts from.
    #[expect(clippy::too_many_arguments, reason = "those of `Graph::walk`, which it stands in for")]
    pub(crate) fn search_layer_filtered(
        &self,
        vectors: &Vectors,
        guard: &Guard<'_>,
        scratch: &mut Scratch,
        starts: impl Iterator<Item = u32>,
        ef: usize,
        mut budget: usize,
        is_allowed: impl Fn(&Slots, u32) -> bool,
    ) -> Result<(), OutOfBudget> {
        let Scratch { query, visited, candidates, passed, found, allowed } = scratch;
        let mut batch = Batch::new(vectors, guard);
        let is_allowed = |slot: u32| is_allowed(allowed, slot);
        let enough = self.links.capacity(0) * 3 / 4;
        candidates.reset(ef);
        visited.reset();
        starts.filter(|&slot| visited.insert(slot)).for_each(|slot| batch.add(slot));
        loop {
            batch.score(query);
            for (slot, distance) in batch.scored() {
                if candidates.would_keep(distance) {
                    candidates.insert(distance, slot, is_allowed(slot));
                }
            }
            let scored = batch.len();
            if scored > budget {
                return Err(OutOfBudget);
            }
            budget -= scored;
            let Some(slot) = candidates.expand() else { return Ok(()) };
            batch.clear();
            passed.clear();
            for link in self.links.get(slot, 0) {
                if visited.contains(link) {
                    continue;
                }
                if is_allowed(link) {
                    visited.insert(link);
                    batch.add(link);
                } else {
                    passed.push(link);
                }
            }
            passed.iter().take(LISTS_AHEAD).for_each(|&slot| self.links.prefetch(slot, 0));
            for at in 0..passed.len() {
                if batch.len() >= enough {
                    break;
                }
                if let Some(&ahead) = passed.get(at + LISTS_AHEAD) {
                    self.links.prefetch(ahead, 0);
                }
                visited.insert(passed[at]);
                let links = self.links.get(passed[at], 0);
                let is_next = |link: &u32| !visited.contains(*link) && is_allowed(*link);
                found.clear();
                found.extend(links.filter(is_next));
                for &link in &*found {
                    visited.insert(link);
                    batch.add(link);
                }
            }
        }
    }
}
