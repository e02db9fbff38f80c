//! The tail: vectors that are not linked into the graph yet, oldest first.

use crate::NONE;
use crate::nodes::{Nodes, SlotState};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU32, AtomicUsize};

/// A singly linked list through the `next` field of the slots. Readers traverse it without locks: the slot that a
/// reader has reached may leave the list, but it is not reused, and its `next` still leads to the later slots.
#[derive(Debug)]
pub(crate) struct Tail {
    head: AtomicU32,
    ends: Mutex<TailEnds>,
    pending: AtomicUsize,
}

#[derive(Debug)]
struct TailEnds {
    /// The newest slot in the list.
    last: u32,
    /// The oldest slot that no thread has taken to link it.
    next_to_take: u32,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail {
            head: AtomicU32::new(NONE),
            ends: Mutex::new(TailEnds { last: NONE, next_to_take: NONE }),
            pending: AtomicUsize::new(0),
        }
    }
}

impl Tail {
    /// Number of slots that were pushed and are not finished.
    pub(crate) fn len(&self) -> usize {
        self.pending.load(Relaxed)
    }

    /// Appends a pending slot. Slots are appended in the order of their insertion epochs.
    pub(crate) fn push(&self, slot: u32, nodes: &Nodes) {
        let mut ends = self.ends.lock();
        self.pending.fetch_add(1, Relaxed);
        if ends.last == NONE {
            self.head.store(slot, Release);
        } else {
            nodes.set_next(ends.last, slot);
        }
        ends.last = slot;
        if ends.next_to_take == NONE {
            ends.next_to_take = slot;
        }
    }

    /// Takes the oldest slot that no other thread has taken.
    pub(crate) fn take(&self, nodes: &Nodes) -> Option<u32> {
        let mut ends = self.ends.lock();
        let slot = ends.next_to_take;
        if slot == NONE {
            return None;
        }
        ends.next_to_take = nodes.next(slot);
        Some(slot)
    }

    /// Moves a taken slot out of the tail and into `state`.
    pub(crate) fn finish(&self, slot: u32, state: SlotState, nodes: &Nodes) {
        nodes.set_state(slot, state);
        let mut ends = self.ends.lock();
        self.pending.fetch_sub(1, Relaxed);
        let mut head = self.head.load(Relaxed);
        while head != NONE && nodes.state(head) != SlotState::Pending {
            head = nodes.next(head);
        }
        self.head.store(head, Release);
        if head == NONE {
            ends.last = NONE;
        }
    }

    /// The pending slots, oldest first.
    pub(crate) fn iter<'a>(&self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + 'a {
        let next = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(next(self.head.load(Acquire)), move |&slot| next(nodes.next(slot)))
            .filter(|&slot| nodes.state(slot) == SlotState::Pending)
    }

    /// The insertion epoch of the oldest slot in the list. Slots inserted earlier are no longer in the list.
    pub(crate) fn oldest_insertion(&self, nodes: &Nodes) -> u64 {
        let _ends = self.ends.lock();
        let head = self.head.load(Acquire);
        if head == NONE { u64::MAX } else { nodes.inserted_at(head) }
    }
}
