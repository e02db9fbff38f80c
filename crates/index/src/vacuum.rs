//! Giving back the slots of removed vectors, a bite at a time.

use crate::Index;
use crate::graph::{Entry, Graph};
use crate::nodes::State;
use crate::repair::LinkRepair;
use crate::scratch::Slots;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vectors::Vectors;

/// One in this many vectors must be dead before a pass mends the graph: it walks all of it.
const PASS_SHARE: usize = 16;
/// As many dead at least.
const PASS_MIN: usize = if cfg!(feature = "shuttle") { 1 } else { 32 };

/// A pass over all slots there were when it began. It takes those out of the graph that were dead then.
#[derive(Debug)]
pub(crate) struct Pass {
    gone: Vec<u32>,
    /// The same.
    dead: Slots,
    next: u32,
    end: u32,
    /// Linked slots it came to.
    met: Slots,
    /// Slots to which one of these leads on the lowest layer.
    reached: Slots,
}

/// What a bite came to.
#[derive(Default)]
struct VacuumStep {
    looked_at: usize,
    given_back: usize,
}

impl Index {
    /// Whether so many removed vectors lie about that there is something to vacuum. Who then brings
    /// vectors faster than a background thread clears up behind them should [`Index::vacuum_step`]
    /// for each of them, or the index grows beyond what it holds.
    pub fn needs_vacuum(&self) -> bool {
        self.counts.removed.load(Relaxed) >= self.tombstones_max()
    }

    /// So many dead are left alone.
    fn tombstones_max(&self) -> usize {
        PASS_MIN.max(self.vectors_count() / PASS_SHARE)
    }

    /// Gives back the slots of removed vectors, mending the links around them, once they are
    /// more than a small share; says how many were given back. None are while a snapshot is taken.
    pub fn vacuum(&self) -> usize {
        self.run_vacuum(u32::MAX).given_back
    }

    /// Part of [`Index::vacuum`]: mends the links of up to `max` slots more, and gives back those of
    /// the removed when it has come to the end. Whether there was anything to do.
    pub fn vacuum_step(&self, max: u32) -> bool {
        let VacuumStep { looked_at, given_back } = self.run_vacuum(max);
        looked_at + given_back > 0
    }

    fn run_vacuum(&self, max: u32) -> VacuumStep {
        let mut pass = self.vacuum_pass.lock();
        let Some(_nobody_keeps) = self.keeping.try_lock() else { return VacuumStep::default() };
        let mut looked_at = 0;
        if pass.is_none() {
            *pass = self.begin_pass();
        }
        if let (Some(graph), Some(running)) = (&self.graph, &mut *pass) {
            looked_at = graph.repair_step(&self.vectors, running, max);
            if running.next == running.end {
                graph.lead_to_unreached(&self.vectors, running);
                self.hide(&running.gone);
                *pass = None;
                graph.wait_for_insertions();
            }
        }
        // Also of earlier bites, whose slots somebody was still looking at.
        let given_back = self.vectors.rows.reclaim();
        self.counts.removed.fetch_sub(given_back, Relaxed);
        VacuumStep { looked_at, given_back }
    }

    /// Hides the dead that no link leads to, and begins a pass if enough are linked.
    fn begin_pass(&self) -> Option<Pass> {
        let Vectors { rows, nodes, .. } = &self.vectors;
        if let Some(graph) = &self.graph
            && self.needs_vacuum()
        {
            // One that was interrupted long ago must not make all that died since wait for another pass.
            graph.wait_for_insertions();
        }
        // A search that started before a vector's death may yet look for it.
        let oldest = rows.epochs().oldest();
        let off_tail = self.tail.oldest_birth(nodes);
        let is_ready = |slot: u32| {
            nodes.died(slot) <= oldest && nodes.born(slot) < off_tail && nodes.state(slot) != State::Waiting
        };
        let mut ready: Vec<u32> = self.dead.lock().extract_if(.., |slot| is_ready(*slot)).collect();
        // Slots are reused in an order that does not depend on how they were found.
        ready.sort_unstable();
        let (linked, loose): (Vec<u32>, Vec<u32>) =
            ready.into_iter().partition(|&slot| self.graph.is_some() && nodes.state(slot) == State::Linked);
        self.hide(&loose);
        match &self.graph {
            Some(graph) if linked.len() >= self.tombstones_max() => {
                Some(graph.begin_pass(&self.vectors, linked))
            }
            _ => {
                self.dead.lock().extend(linked);
                None
            }
        }
    }

    /// Lets no reader that starts later come to slots, to which no link leads.
    fn hide(&self, slots: &[u32]) {
        if !slots.is_empty() {
            slots.iter().for_each(|&slot| self.vectors.nodes.set_state(slot, State::Empty));
            self.vectors.rows.retire(slots);
        }
    }
}

impl Graph {
    /// Sees to it that no walk begins at one of `gone`, and no link to one of them is added any more. They
    /// are all linked, and no reader, now or later, sees them as living.
    fn begin_pass(&self, vectors: &Vectors, gone: Vec<u32>) -> Pass {
        let mut dead = Slots::default();
        dead.reset(vectors.rows.end());
        for &slot in &gone {
            assert!(dead.insert(slot), "slots that were used are below the end");
        }
        {
            // Insertions that run might still link to the dead; those that come later will not.
            let _no_insertion = self.inserting.write();
            if self.entry().is_some_and(|entry| dead.contains(entry.slot)) {
                self.set_entry(self.highest(vectors, &dead));
            }
        }
        let end = vectors.rows.end();
        let [mut met, mut reached] = [Slots::default(), Slots::default()];
        met.reset(end);
        reached.reset(end);
        Pass { gone, dead, next: 0, end, met, reached }
    }

    /// Waits for the insertions that run: they, too, hold on to slots.
    fn wait_for_insertions(&self) {
        drop(self.inserting.write());
    }

    /// Goes on with a pass by up to `max` slots, and says by how many: whoever links to the dead links to
    /// where they led instead (FreshDiskANN, Singh et al. 2021, algorithm 4). At its end no link leads
    /// to them.
    fn repair_step(&self, vectors: &Vectors, pass: &mut Pass, max: u32) -> usize {
        let guard = vectors.rows.pin();
        let repair = LinkRepair { graph: self, vectors, guard: &guard, dead: &pass.dead };
        let end = pass.end.min(pass.next.saturating_add(max));
        for slot in (pass.next..end).filter(|&slot| is_left(vectors, &pass.dead, slot)) {
            for layer in 0..=self.links.level(slot) {
                if self.links.get(slot, layer).any(|link| pass.dead.contains(link)) {
                    repair.list(slot, layer);
                }
            }
            pass.met.insert(slot);
            for link in self.links.get(slot, 0) {
                // Where there is no room, the link is to a slot that came after the pass began.
                pass.reached.insert(link);
            }
        }
        let looked_at = end - pass.next;
        pass.next = end;
        looked_at as usize
    }

    /// Whom only the dead led to: its neighbours lead to it now.
    fn lead_to_unreached(&self, vectors: &Vectors, pass: &Pass) {
        let guard = vectors.rows.pin();
        for slot in (0..pass.end).filter(|&slot| pass.met.contains(slot) && !pass.reached.contains(slot)) {
            let neighbors: Vec<u32> =
                self.links.get(slot, 0).filter(|link| vectors.nodes.is_live(*link)).collect();
            for neighbor in neighbors {
                self.link_back(vectors, &guard, neighbor, slot, 0);
            }
        }
    }

    /// The living slot to begin walks at. No insertion runs.
    fn highest(&self, vectors: &Vectors, dead: &Slots) -> Option<Entry> {
        let slots = (0..vectors.rows.end()).filter(|&slot| is_left(vectors, dead, slot));
        let entries = slots.map(|slot| Entry { slot, level: self.links.level(slot) });
        entries.max_by_key(|entry| (vectors.nodes.is_live(entry.slot), entry.level))
    }
}

fn is_left(vectors: &Vectors, dead: &Slots, slot: u32) -> bool {
    vectors.nodes.state(slot) == State::Linked && !dead.contains(slot)
}
