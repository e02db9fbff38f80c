//! What a thread reuses from one search to the next.

use std::cell::Cell;

use crate::candidates::Candidates;
use crate::vector_codec::Query;

const WORD_BITS: usize = u64::BITS as usize;

/// Buffers of a search or an insertion.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) query: Query,
    pub(crate) visited: Visited,
    pub(crate) candidates: Candidates,
    /// Slots a walk passes by.
    pub(crate) passed: Vec<u32>,
    /// Allowed slots behind one of those.
    pub(crate) found: Vec<u32>,
    pub(crate) allowed: Slots,
}

/// A set of slots, a bit each.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    words: Vec<u64>,
}

impl Slots {
    /// Empties it, and makes room for slots below `end`.
    pub(crate) fn reset(&mut self, end: u32) {
        self.words.clear();
        self.words.resize((end as usize).div_ceil(WORD_BITS), 0);
    }

    /// Puts a slot in; whether there is room for it.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32) -> bool {
        let word = self.words.get_mut(slot as usize / WORD_BITS);
        word.map(|word| *word |= 1 << (slot as usize % WORD_BITS)).is_some()
    }

    /// Whether it holds a slot.
    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        let word = self.words.get(slot as usize / WORD_BITS);
        word.is_some_and(|word| word >> (slot as usize % WORD_BITS) & 1 != 0)
    }
}

thread_local! {
    static SPARE: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Runs `work` with this thread's buffers.
pub(crate) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SPARE.take().unwrap_or_default();
    let result = work(&mut scratch);
    SPARE.set(Some(scratch));
    result
}

/// The slots a walk has met: a byte each, marked with the number of the walk, so that they need
/// clearing only once in 255 walks.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    marks: Vec<u8>,
    walk: u8,
}

impl Visited {
    /// Forgets every slot.
    pub(crate) fn reset(&mut self) {
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.marks.fill(0);
            self.walk = 1;
        }
    }

    /// Whether a slot is marked.
    #[inline]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.marks.get(slot as usize).is_some_and(|&mark| mark == self.walk)
    }

    /// Marks a slot; whether it was not marked before.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32) -> bool {
        let slot = slot as usize;
        if slot >= self.marks.len() {
            self.marks.resize((slot + 1).next_multiple_of(4096), 0);
        }
        std::mem::replace(&mut self.marks[slot], self.walk) != self.walk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_meets_a_slot_for_the_first_time_once() {
        let mut visited = Visited::default();
        for _ in 0..600 {
            visited.reset();
            for slot in [0, 3, 10_000] {
                assert!(visited.insert(slot));
                assert!(!visited.insert(slot));
            }
        }
    }
    #[test]
    fn a_set_holds_what_was_put_in_and_has_room_for() {
        let mut slots = Slots::default();
        for end in [0, 1, 64, 65, 1_000] {
            slots.reset(end);
            assert!((0..end).all(|slot| !slots.contains(slot)));
            assert!((0..end).step_by(3).all(|slot| slots.insert(slot)));
            assert!((0..end).all(|slot| slots.contains(slot) == (slot % 3 == 0)));
            assert!(!slots.insert(end + 64) && !slots.contains(end + 64) && !slots.contains(u32::MAX));
        }
    }
}
