//! The threads that link vectors from the tails into the graphs.

use index::Index;

use crate::core::Core;

/// Vectors linked per step: a fraction of a second's work.
const DRAIN_BATCH: usize = 64;
/// Slots vacuumed per step: writers wait for a step.
const VACUUM_BATCH: u32 = 256;
/// Vectors refined per step: fewer, as new vectors may be waiting.
const REFINE_BATCH: usize = 16;

/// A tail is long if it holds more than one in this many of the allowed vectors: every search scans it.
const LONG_TAIL_SHARE: usize = 4;

impl Core {
    /// Drains long tails until the engine closes. When searches use the whole processor, the low-priority indexers
    /// fall behind and searches would become slower and slower.
    pub(crate) fn run_tail_drainer(&self) {
        loop {
            // In this order, so that no notification of closing is missed.
            let seen = self.indexing_wake.generation();
            if self.is_closing() {
                return;
            }
            let is_long = |index: &Index| index.tail_len() > self.tail_max / LONG_TAIL_SHARE;
            if !self.each_index(|index| is_long(index) && index.drain(DRAIN_BATCH) > 0) {
                self.indexing_wake.wait(seen);
            }
        }
    }

    /// Drains tails, vacuums removed vectors and refines graphs until the engine closes; sleeps while there is
    /// nothing to do. `thread` numbers the threads from 0: each begins at another collection.
    pub(crate) fn run_indexer(&self, thread: usize) {
        loop {
            // In this order, so that no notification of closing is missed.
            let seen = self.indexing_wake.generation();
            if self.is_closing() {
                return;
            }
            let drained = self.drain_once(thread);
            // Only one thread vacuums, and between draining steps: where tails never empty, removed vectors would
            // accumulate without limit. The same thread refines, which is never urgent.
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
        self.each_index(|index| index.vacuum_step(VACUUM_BATCH))
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
    fn each_index(&self, work: impl Fn(&Index) -> bool) -> bool {
        let registry = self.registry();
        let mut worked = false;
        for index in registry.all().flat_map(|collection| &collection.indexes) {
            worked |= !self.is_closing() && work(index);
        }
        worked
    }
}
