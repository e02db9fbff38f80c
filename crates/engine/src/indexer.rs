//! The threads that link vectors from the tails into the graphs.

use index::Index;

use crate::core::Core;

/// Vectors linked between two looks around: a fraction of a second's work.
const DRAIN_BATCH: usize = 64;
/// Slots swept between two looks around: those who bring vectors wait for as much.
const VACUUM_BATCH: u32 = 256;
/// Vectors refined between two looks around: less, for new ones may be waiting.
const REFINE_BATCH: usize = 16;

/// A tail is long from this share of its bound on: every search scans it.
const LONG_TAIL_SHARE: usize = 4;

impl Core {
    /// Drains tails that have grown long until the engine closes: where searches take all there is of
    /// the processor, the threads that give way to them would let each search become slower.
    pub(crate) fn run_tail_drainer(&self) {
        loop {
            // In this order, so that the ring of closing is not taken for one that was answered.
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

    /// Drains tails, sweeps removed vectors and refines graphs until the engine closes, asleep when
    /// there is nothing to do. `thread` counts the threads from 0: they begin at different collections.
    pub(crate) fn run_indexer(&self, thread: usize) {
        loop {
            // In this order, so that the ring of closing is not taken for one that was answered.
            let seen = self.indexing_wake.generation();
            if self.is_closing() {
                return;
            }
            let drained = self.drain_once(thread);
            // One sweeps, and between bites: where tails never become empty, the dead would grow without
            // a bound. It also refines, which is never urgent.
            let swept = thread == 0 && self.vacuum_once();
            let worked = drained || swept || (thread == 0 && self.refine_once());
            if !worked {
                self.indexing_wake.wait(seen);
            }
        }
    }

    /// Takes a bite out of every tail; `false` if all are empty.
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

    /// Does some work on every index; whether there was any.
    fn each_index(&self, work: impl Fn(&Index) -> bool) -> bool {
        let registry = self.registry();
        let mut worked = false;
        for index in registry.all().flat_map(|collection| &collection.indexes) {
            worked |= !self.is_closing() && work(index);
        }
        worked
    }
}
