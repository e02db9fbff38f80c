//! What is known of each slot besides its row and its links.

use kernels::arena::{CHUNK_SLOTS, Chunks};

use crate::NONE;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// The epoch of death of what lives.
pub(crate) const NEVER: u64 = u64::MAX;
const WORD_BITS: usize = u64::BITS as usize;
const LIVE_WORDS: usize = CHUNK_SLOTS.div_ceil(WORD_BITS);

/// Where a slot is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Holds nothing, or nothing any more.
    Empty,
    /// In the tail.
    Waiting,
    /// In the graph; in a flat index, in its only place.
    Linked,
    /// Died in the tail and was never linked.
    Skipped,
}

/// A table by slot.
///
/// A vector is *born* at the epoch of its upsert and *dies* at the epoch that removes or replaces
/// it; a reader pinned at epoch `t` sees what was born by `t` and dies after `t`. So replacing a
/// vector, which is one epoch, is seen wholly or not at all.
#[derive(Debug)]
pub(crate) struct Nodes {
    chunks: Chunks<Chunk>,
    scaled: bool,
}

#[derive(Debug)]
struct Chunk {
    label: [AtomicU32; CHUNK_SLOTS],
    born: [AtomicU64; CHUNK_SLOTS],
    died: [AtomicU64; CHUNK_SLOTS],
    /// A bit a slot: whether it lives. Small enough to stay near the processor, while births and
    /// deaths are far away for most slots a walk meets.
    live: [AtomicU64; LIVE_WORDS],
    /// The last birth of all.
    youngest: AtomicU64,
    state: [AtomicU8; CHUNK_SLOTS],
    next: [AtomicU32; CHUNK_SLOTS],
    /// Empty where every scale is 1.
    scale: Box<[AtomicU32]>,
}

impl Nodes {
    pub(crate) fn new(scaled: bool) -> Nodes {
        Nodes { chunks: Chunks::default(), scaled }
    }

    /// Sets down what a claimed slot is about to hold. It stays invisible until it is born.
    pub(crate) fn fill(&self, slot: u32, label: u32, scale: f32, state: State) {
        let scales = if self.scaled { CHUNK_SLOTS } else { 0 };
        let chunk = self.chunks.get_or_init(slot as usize / CHUNK_SLOTS, || Chunk {
            label: std::array::from_fn(|_| AtomicU32::new(NONE)),
            born: std::array::from_fn(|_| AtomicU64::new(NEVER)),
            died: std::array::from_fn(|_| AtomicU64::new(0)),
            live: std::array::from_fn(|_| AtomicU64::new(0)),
            youngest: AtomicU64::new(0),
            state: std::array::from_fn(|_| AtomicU8::new(State::Empty as u8)),
            next: std::array::from_fn(|_| AtomicU32::new(NONE)),
            scale: (0..scales).map(|_| AtomicU32::new(0)).collect(),
        });
        let at = slot as usize % CHUNK_SLOTS;
        chunk.label[at].store(label, Relaxed);
        chunk.next[at].store(NONE, Relaxed);
        if self.scaled {
            chunk.scale[at].store(scale.to_bits(), Relaxed);
        }
        chunk.state[at].store(state as u8, Release);
    }

    #[inline]
    fn at(&self, slot: u32) -> (&Chunk, usize) {
        let chunk = self.chunks.get(slot as usize / CHUNK_SLOTS);
        (chunk.expect("a slot that is in use was filled"), slot as usize % CHUNK_SLOTS)
    }

    pub(crate) fn label(&self, slot: u32) -> u32 {
        let (chunk, at) = self.at(slot);
        chunk.label[at].load(Relaxed)
    }

    pub(crate) fn scale(&self, slot: u32) -> f32 {
        if !self.scaled {
            return 1.0;
        }
        let (chunk, at) = self.at(slot);
        f32::from_bits(chunk.scale[at].load(Relaxed))
    }

    /// The state; empty for a slot that was never filled.
    pub(crate) fn state(&self, slot: u32) -> State {
        let chunk = self.chunks.get(slot as usize / CHUNK_SLOTS);
        match chunk.map_or(0, |chunk| chunk.state[slot as usize % CHUNK_SLOTS].load(Acquire)) {
            0 => State::Empty,
            1 => State::Waiting,
            2 => State::Linked,
            _ => State::Skipped,
        }
    }

    pub(crate) fn set_state(&self, slot: u32, state: State) {
        let (chunk, at) = self.at(slot);
        chunk.state[at].store(state as u8, Release);
    }

    /// The slot that came into the tail after this one.
    pub(crate) fn next(&self, slot: u32) -> u32 {
        let (chunk, at) = self.at(slot);
        chunk.next[at].load(Acquire)
    }

    pub(crate) fn set_next(&self, slot: u32, next: u32) {
        let (chunk, at) = self.at(slot);
        chunk.next[at].store(next, Release);
    }

    pub(crate) fn born(&self, slot: u32) -> u64 {
        let (chunk, at) = self.at(slot);
        chunk.born[at].load(Acquire)
    }

    pub(crate) fn died(&self, slot: u32) -> u64 {
        let (chunk, at) = self.at(slot);
        chunk.died[at].load(Acquire)
    }

    #[inline]
    pub(crate) fn is_live(&self, slot: u32) -> bool {
        let (word, bit) = self.live(slot);
        word.load(Acquire) & bit != 0
    }

    /// Whether a slot lives, or died so late that a reader who began at `oldest` or later may look for it.
    #[inline]
    pub(crate) fn is_wanted(&self, slot: u32, oldest: u64) -> bool {
        self.is_live(slot) || self.died(slot) > oldest
    }

    /// The word that holds a slot's bit, and the bit.
    #[inline]
    fn live(&self, slot: u32) -> (&AtomicU64, u64) {
        let (chunk, at) = self.at(slot);
        (&chunk.live[at / WORD_BITS], 1 << (at % WORD_BITS))
    }

    /// Whether a reader pinned at `epoch` sees it. A slot that was never filled is not seen.
    pub(crate) fn is_visible(&self, slot: u32, epoch: u64) -> bool {
        let Some(chunk) = self.chunks.get(slot as usize / CHUNK_SLOTS) else { return false };
        let at = slot as usize % CHUNK_SLOTS;
        // In this order, for `set_born` writes in the other: whoever sees the new life's end
        // sees its beginning.
        epoch < chunk.died[at].load(Acquire) && chunk.born[at].load(Acquire) <= epoch
    }

    pub(crate) fn set_born(&self, slot: u32, epoch: u64) {
        let (chunk, at) = self.at(slot);
        chunk.youngest.fetch_max(epoch, Release);
        chunk.born[at].store(epoch, Release);
        chunk.died[at].store(NEVER, Release);
        let (word, bit) = self.live(slot);
        word.fetch_or(bit, Release);
    }

    /// Tells of slots whether they were born by `epoch`. Births lie far apart; where nothing was written
    /// since, none has to be looked at.
    pub(crate) fn are_older(&self, epoch: u64) -> impl FnMut(u32) -> bool {
        let (mut place, mut chunk) = (usize::MAX, None);
        move |slot| {
            if slot as usize / CHUNK_SLOTS != place {
                place = slot as usize / CHUNK_SLOTS;
                chunk = self.chunks.get(place);
            }
            let chunk = chunk.expect("a slot that is in use was filled");
            // Read anew for every slot: whoever found it sees its birth in here.
            chunk.youngest.load(Acquire) <= epoch
                || chunk.born[slot as usize % CHUNK_SLOTS].load(Acquire) <= epoch
        }
    }

    pub(crate) fn set_died(&self, slot: u32, epoch: u64) {
        let (chunk, at) = self.at(slot);
        chunk.died[at].store(epoch, Release);
        let (word, bit) = self.live(slot);
        word.fetch_and(!bit, Release);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.bytes() + self.chunks.iter().map(|chunk| size_of_val(&*chunk.scale)).sum::<usize>()
    }
}
