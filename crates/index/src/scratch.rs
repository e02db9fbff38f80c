//! Buffers that a thread reuses from one search to the next.

use std::cell::Cell;

use crate::candidates::Candidates;
use crate::vector_codec::PreparedQuery;

const WORD_BITS: usize = u64::BITS as usize;

/// Buffers of a search or an insertion.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) query: PreparedQuery,
    pub(crate) visited: VisitedSet,
    pub(crate) candidates: Candidates,
    /// Neighbours of the current node that the filter excludes.
    pub(crate) filtered_out: Vec<u32>,
    /// Allowed neighbours of one slot in `filtered_out`.
    pub(crate) two_hop: Vec<u32>,
    pub(crate) allowed: SlotSet,
}

/// A set of slots as a bitmap.
#[derive(Debug, Default)]
pub(crate) struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    /// Clears the set and sizes it for slots below `end`.
    pub(crate) fn reset(&mut self, end: u32) {
        self.words.clear();
        self.words.resize((end as usize).div_ceil(WORD_BITS), 0);
    }

    /// Inserts a slot. `false` if the set is too small for it.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32) -> bool {
        let word = self.words.get_mut(slot as usize / WORD_BITS);
        word.map(|word| *word |= 1 << (slot as usize % WORD_BITS)).is_some()
    }

    /// Whether the set contains a slot.
    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        let word = self.words.get(slot as usize / WORD_BITS);
        word.is_some_and(|word| word >> (slot as usize % WORD_BITS) & 1 != 0)
    }
}

thread_local! {
    static SPARE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Runs `work` with the buffers of this thread.
pub(crate) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SPARE.take().unwrap_or_default();
    let result = work(&mut scratch);
    SPARE.set(Some(scratch));
    result
}

/// The slots that a search has visited. A byte per slot holds the generation that visited it last, so the bytes
/// need clearing only once in 255 searches.
#[derive(Debug, Default)]
pub(crate) struct VisitedSet {
    marks: Vec<u8>,
    generation: u8,
}

impl VisitedSet {
    /// Clears the set.
    pub(crate) fn reset(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.marks.fill(0);
            self.generation = 1;
        }
    }

    /// Whether the set contains a slot.
    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.marks.get(slot as usize).is_some_and(|&mark| mark == self.generation)
    }

    /// Inserts a slot. `true` if the set did not contain it before.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32) -> bool {
        let slot = slot as usize;
        if slot >= self.marks.len() {
            self.marks.resize((slot + 1).next_multiple_of(4096), 0);
        }
        std::mem::replace(&mut self.marks[slot], self.generation) != self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_inserted_once_per_generation() {
        let mut visited = VisitedSet::default();
        for _ in 0..600 {
            visited.reset();
            for slot in [0, 3, 10_000] {
                assert!(visited.insert(slot));
                assert!(!visited.insert(slot));
            }
        }
    }

    #[test]
    fn a_set_contains_what_was_inserted_within_its_size() {
        let mut slots = SlotSet::default();
        for end in [0, 1, 64, 65, 1_000] {
            slots.reset(end);
            assert!((0..end).all(|slot| !slots.contains(slot)));
            assert!((0..end).step_by(3).all(|slot| slots.insert(slot)));
            assert!((0..end).all(|slot| slots.contains(slot) == (slot % 3 == 0)));
            assert!(!slots.insert(end + 64) && !slots.contains(end + 64) && !slots.contains(u32::MAX));
        }
    }
}
