//! Vacuum: reclaiming the slots of removed vectors, in small steps.

use crate::Index;
use crate::graph::{EntryPoint, Graph};
use crate::nodes::SlotState;
use crate::repair::LinkRepair;
use crate::scratch::SlotSet;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vectors::Vectors;

/// A pass visits the whole graph, so it begins only when the removed vectors are this fraction (1 / n) of the live
/// ones.
const PASS_SHARE: usize = 16;
/// A pass begins only when at least this many vectors are removed.
const PASS_MIN: usize = if cfg!(feature = "shuttle") { 1 } else { 32 };

/// A pass over all slots that exist when it begins. It unlinks the slots whose vectors have been removed by then.
#[derive(Debug)]
pub(crate) struct VacuumPass {
    removed: Vec<u32>,
    /// The slots of `removed` as a set.
    dead: SlotSet,
    next: u32,
    end: u32,
    /// The linked slots that the pass has visited.
    scanned: SlotSet,
    /// The slots to which a slot in `scanned` links on layer 0.
    linked_to: SlotSet,
}

/// The work that one step has done.
#[derive(Default)]
struct VacuumStep {
    slots_scanned: usize,
    reclaimed: usize,
}

impl Index {
    /// Whether there are enough removed vectors for a vacuum pass. A caller that inserts vectors faster than a
    /// background thread vacuums should then call [`Index::vacuum_step`] with each insertion, to keep the size of
    /// the index bounded.
    pub fn needs_vacuum(&self) -> bool {
        self.counters.removed.load(Relaxed) >= self.tombstones_max()
    }

    /// Number of removed vectors below which no pass begins.
    fn tombstones_max(&self) -> usize {
        PASS_MIN.max(self.vectors_count() / PASS_SHARE)
    }

    /// Repairs the links around removed vectors and reclaims their slots, once [`Index::needs_vacuum`]. Returns the
    /// number of slots reclaimed, which is 0 while a snapshot is being written.
    pub fn vacuum(&self) -> usize {
        self.run_vacuum(u32::MAX).reclaimed
    }

    /// One step of [`Index::vacuum`]: visits up to `max` further slots, and reclaims the slots of the removed
    /// vectors at the end of the pass. Returns whether there was anything to do.
    pub fn vacuum_step(&self, max: u32) -> bool {
        let VacuumStep { slots_scanned, reclaimed } = self.run_vacuum(max);
        slots_scanned + reclaimed > 0
    }

    fn run_vacuum(&self, max: u32) -> VacuumStep {
        let mut pass = self.vacuum_pass.lock();
        let Some(_reclaim_guard) = self.reclaim_lock.try_lock() else { return VacuumStep::default() };
        let mut slots_scanned = 0;
        if pass.is_none() {
            *pass = self.begin_pass();
        }
        if let (Some(graph), Some(current)) = (&self.graph, &mut *pass) {
            slots_scanned = graph.repair_step(&self.vectors, current, max);
            if current.next == current.end {
                graph.relink_unreached(&self.vectors, current);
                self.retire_slots(&current.removed);
                *pass = None;
                graph.wait_for_insertions();
            }
        }
        // Includes slots that were retired by earlier steps while a reader was still using them.
        let reclaimed = self.vectors.rows.reclaim();
        self.counters.removed.fetch_sub(reclaimed, Relaxed);
        VacuumStep { slots_scanned, reclaimed }
    }

    /// Retires the removed slots that are not in the graph, and begins a pass if enough of the others are removed.
    fn begin_pass(&self) -> Option<VacuumPass> {
        let Vectors { rows, nodes, .. } = &self.vectors;
        if let Some(graph) = &self.graph
            && self.needs_vacuum()
        {
            // An insertion that has been in progress for long would exclude all slots removed since from this pass.
            graph.wait_for_insertions();
        }
        // A search that started before a removal may still find the vector.
        let oldest = rows.epochs().oldest();
        let oldest_pending = self.tail.oldest_insertion(nodes);
        let is_ready = |slot: u32| {
            nodes.deleted_at(slot) <= oldest
                && nodes.inserted_at(slot) < oldest_pending
                && nodes.state(slot) != SlotState::Pending
        };
        let mut ready: Vec<u32> = self.tombstones.lock().extract_if(.., |slot| is_ready(*slot)).collect();
        // Makes the order in which slots are reused deterministic.
        ready.sort_unstable();
        let (linked, unlinked): (Vec<u32>, Vec<u32>) = ready
            .into_iter()
            .partition(|&slot| self.graph.is_some() && nodes.state(slot) == SlotState::Linked);
        self.retire_slots(&unlinked);
        match &self.graph {
            Some(graph) if linked.len() >= self.tombstones_max() => {
                Some(graph.begin_pass(&self.vectors, linked))
            }
            _ => {
                self.tombstones.lock().extend(linked);
                None
            }
        }
    }

    /// Hides slots that no link leads to from readers that start later.
    fn retire_slots(&self, slots: &[u32]) {
        if !slots.is_empty() {
            slots.iter().for_each(|&slot| self.vectors.nodes.set_state(slot, SlotState::Empty));
            self.vectors.rows.retire(slots);
        }
    }
}

impl Graph {
    /// Begins a pass over the slots `removed`, which are linked and which no reader, now or later, sees as live. From
    /// now on none of them is the entry point, and no insertion links to them.
    fn begin_pass(&self, vectors: &Vectors, removed: Vec<u32>) -> VacuumPass {
        let mut dead = SlotSet::default();
        dead.reset(vectors.rows.end());
        for &slot in &removed {
            assert!(dead.insert(slot), "the slots in use are below the end");
        }
        {
            // Insertions in progress may still link to the removed slots; later ones do not.
            let _no_insertion = self.insertions.write();
            if self.entry_point().is_some_and(|entry| dead.contains(entry.slot)) {
                self.set_entry_point(self.highest_linked(vectors, &dead));
            }
        }
        let end = vectors.rows.end();
        let [mut scanned, mut linked_to] = [SlotSet::default(), SlotSet::default()];
        scanned.reset(end);
        linked_to.reset(end);
        VacuumPass { removed, dead, next: 0, end, scanned, linked_to }
    }

    /// Waits for the insertions in progress, which also keep slots from being reclaimed.
    fn wait_for_insertions(&self) {
        drop(self.insertions.write());
    }

    /// Continues a pass by up to `max` slots, and returns their number. Links to removed slots are replaced by links
    /// to the neighbours of those slots (FreshDiskANN, Singh et al. 2021, algorithm 4). At the end of the pass no
    /// link leads to a removed slot.
    fn repair_step(&self, vectors: &Vectors, pass: &mut VacuumPass, max: u32) -> usize {
        let guard = vectors.rows.pin();
        let repair = LinkRepair { graph: self, vectors, guard: &guard, dead: &pass.dead };
        let end = pass.end.min(pass.next.saturating_add(max));
        for slot in (pass.next..end).filter(|&slot| remains_linked(vectors, &pass.dead, slot)) {
            for layer in 0..=self.links.level(slot) {
                if self.links.get(slot, layer).any(|link| pass.dead.contains(link)) {
                    repair.repair_list(slot, layer);
                }
            }
            pass.scanned.insert(slot);
            for link in self.links.get(slot, 0) {
                // A slot that is too large for the set was added after the pass began.
                pass.linked_to.insert(link);
            }
        }
        let slots_scanned = end - pass.next;
        pass.next = end;
        slots_scanned as usize
    }

    /// Adds links from their neighbours to the slots to which only removed slots linked.
    fn relink_unreached(&self, vectors: &Vectors, pass: &VacuumPass) {
        let guard = vectors.rows.pin();
        for slot in
            (0..pass.end).filter(|&slot| pass.scanned.contains(slot) && !pass.linked_to.contains(slot))
        {
            let neighbors: Vec<u32> =
                self.links.get(slot, 0).filter(|link| vectors.nodes.is_live(*link)).collect();
            for neighbor in neighbors {
                self.add_reverse_link(vectors, &guard, neighbor, slot, 0);
            }
        }
    }

    /// The slot that becomes the entry point: on the highest layer, and live if there is a live one. No insertion is
    /// in progress.
    fn highest_linked(&self, vectors: &Vectors, dead: &SlotSet) -> Option<EntryPoint> {
        let slots = (0..vectors.rows.end()).filter(|&slot| remains_linked(vectors, dead, slot));
        let entries = slots.map(|slot| EntryPoint { slot, level: self.links.level(slot) });
        entries.max_by_key(|entry| (vectors.nodes.is_live(entry.slot), entry.level))
    }
}

fn remains_linked(vectors: &Vectors, dead: &SlotSet, slot: u32) -> bool {
    vectors.nodes.state(slot) == SlotState::Linked && !dead.contains(slot)
}
