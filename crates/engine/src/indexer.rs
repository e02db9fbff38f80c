//! The threads that link vectors from the tails into the graphs.

use index::Index;

use crate::core::Core;

/// Vectors linked per step, which takes a fraction of a second.
const DRAIN_BATCH: usize = 64;
/// Slots vacuumed per step. Writers wait for a step to end.
const VACUUM_BATCH: u32 = 256;
/// Vectors refined per step: few, because new vectors may be waiting to be linked.
const REFINE_BATCH: usize = 16;

/// A tail is long if it is longer than `tail_max` divided by this. Every search scans the tail.
const LONG_TAIL_SHARE: usize = 4;

impl Core {
    /// Drains long tails at normal priority until the engine closes. Otherwise, when searches use the whole processor,
    /// the low-priority indexers would fall behind and searches would become ever slower.
    pub(crate) fn run_tail_drainer(&self) {
        loop {
            // Read before checking for work, so that no notification is missed.
            let seen = self.indexing_wake.generation();
            if self.is_closing() {
                return;
            }
            let is_long = |index: &Index| index.tail_len() > self.tail_max / LONG_TAIL_SHARE;
            if !self.for_each_index(|index| is_long(index) && index.drain(DRAIN_BATCH) > 0) {
                self.indexing_wake.wait(seen);
            }
        }
    }

    /// Drains tails, vacuums removed vectors and refines graphs until the engine closes; sleeps while there is
    /// nothing to do. `thread` is the thread's number, from 0: each thread begins with a different index.
    pub(crate) fn run_indexer(&self, thread: usize) {
        loop {
            // Read before checking for work, so that no notification is missed.
            let seen = self.indexing_wake.generation();
            if self.is_closing() {
                return;
            }
            let drained = self.drain_once(thread);
            // One thread vacuums between draining steps, because removed vectors would accumulate without limit if
            // vacuuming waited for empty tails. The same thread refines, which is never urgent.
            let vacuumed = thread == 0 && self.vacuum_once();
            let worked = drained || vacuumed || (thread == 0 && self.refine_once());
            if !worked {
                self.indexing_wake.wait(seen);
            }
        }
    }

    /// Drains a step of every tail. Returns whether there was anything to do.
    fn drain_once(&self, thread: usize) -> bool {
        let registry = self.registry();
        let indexes: Vec<_> = registry.all().flat_map(|collection| &collection.indexes).collect();
        let mut worked = false;
        for at in 0..indexes.len() {
            if self.is_closing() {
                return worked;
            }
            let index = indexes[(at + thread) % indexes.len()];
            worked |= index.drain(DRAIN_BATCH) > 0;
        }
        worked
    }

    fn vacuum_once(&self) -> bool {
        self.for_each_index(|index| index.vacuum_step(VACUUM_BATCH))
    }

    fn refine_once(&self) -> bool {
        let registry = self.registry();
        let mut worked = false;
        for collection in registry.all() {
            worked |= !self.is_closing() && collection.refine(REFINE_BATCH);
        }
        worked
    }

    /// Does some work on every index. Returns whether there was any.
    fn for_each_index(&self, work: impl Fn(&Index) -> bool) -> bool {
        let registry = self.registry();
        let mut worked = false;
        for index in registry.all().flat_map(|collection| &collection.indexes) {
            worked |= !self.is_closing() && work(index);
        }
        worked
    }
}
