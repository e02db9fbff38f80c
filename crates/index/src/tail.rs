//! The vectors the graph has not taken in yet, oldest first.

use crate::NONE;
use crate::nodes::{Nodes, State};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU32, AtomicUsize};

/// A list through the slots' `next`. Readers walk it without locks: a slot they stand on may be
/// taken off the list, but is not reused, and still leads on to what came after it.
#[derive(Debug)]
pub(crate) struct Tail {
    head: AtomicU32,
    ends: Mutex<Ends>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Ends {
    /// The newest slot on the list.
    last: u32,
    /// The oldest slot nobody has taken to link.
    untaken: u32,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail {
            head: AtomicU32::new(NONE),
            ends: Mutex::new(Ends { last: NONE, untaken: NONE }),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Tail {
    /// Slots that were pushed and not yet settled.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Adds a waiting slot. Slots come in the order of their births.
    pub(crate) fn push(&self, slot: u32, nodes: &Nodes) {
        let mut ends = self.ends.lock();
        self.waiting.fetch_add(1, Relaxed);
        if ends.last == NONE {
            self.head.store(slot, Release);
        } else {
            nodes.set_next(ends.last, slot);
        }
        ends.last = slot;
        if ends.untaken == NONE {
            ends.untaken = slot;
        }
    }

    /// The oldest slot nobody has taken yet.
    pub(crate) fn take(&self, nodes: &Nodes) -> Option<u32> {
        let mut ends = self.ends.lock();
        let slot = ends.untaken;
        if slot == NONE {
            return None;
        }
        ends.untaken = nodes.next(slot);
        Some(slot)
    }

    /// Says that a taken slot waits no longer, and where it is now.
    pub(crate) fn settle(&self, slot: u32, state: State, nodes: &Nodes) {
        nodes.set_state(slot, state);
        let mut ends = self.ends.lock();
        self.waiting.fetch_sub(1, Relaxed);
        let mut head = self.head.load(Relaxed);
        while head != NONE && nodes.state(head) != State::Waiting {
            head = nodes.next(head);
        }
        self.head.store(head, Release);
        if head == NONE {
            ends.last = NONE;
        }
    }

    /// The waiting slots, oldest first.
    pub(crate) fn iter<'a>(&self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + 'a {
        let next = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(next(self.head.load(Acquire)), move |&slot| next(nodes.next(slot)))
            .filter(|&slot| nodes.state(slot) == State::Waiting)
    }

    /// The birth of the oldest slot on the list: slots born before are off it.
    pub(crate) fn oldest_birth(&self, nodes: &Nodes) -> u64 {
        let _ends = self.ends.lock();
        let head = self.head.load(Acquire);
        if head == NONE { u64::MAX } else { nodes.born(head) }
    }
}
