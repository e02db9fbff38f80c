//! Metadata of each slot.

use kernels::arena::{CHUNK_SLOTS, Chunks};

use crate::NONE;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// The deletion epoch of a live vector.
pub(crate) const NEVER: u64 = u64::MAX;
const WORD_BITS: usize = u64::BITS as usize;
const LIVE_WORDS: usize = CHUNK_SLOTS.div_ceil(WORD_BITS);

/// The life cycle of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SlotState {
    /// The slot has no vector.
    Empty,
    /// In the tail, waiting to be linked.
    Pending,
    /// In the graph. In a flat index, every vector is in this state.
    Linked,
    /// Removed while it was in the tail, and never linked.
    Skipped,
}

/// The metadata table, indexed by slot.
///
/// A vector has an insertion epoch and a deletion epoch, the epoch that removes or replaces it. A reader pinned
/// at epoch `t` sees the vectors inserted at or before `t` and deleted after `t`. Replacing a vector takes a
/// single epoch, so a reader sees either the old vector or the new one.
#[derive(Debug)]
pub(crate) struct Nodes {
    chunks: Chunks<NodeChunk>,
    scaled: bool,
}

#[derive(Debug)]
struct NodeChunk {
    label: [AtomicU32; CHUNK_SLOTS],
    inserted_at: [AtomicU64; CHUNK_SLOTS],
    deleted_at: [AtomicU64; CHUNK_SLOTS],
    /// One bit per slot: whether it is live. The bits fit into the processor's cache, whereas looking up the epochs
    /// of a slot usually costs a cache miss.
    live: [AtomicU64; LIVE_WORDS],
    /// The latest insertion epoch in the chunk.
    last_insertion: AtomicU64,
    state: [AtomicU8; CHUNK_SLOTS],
    next: [AtomicU32; CHUNK_SLOTS],
    /// Empty if every scale is 1.
    scale: Box<[AtomicU32]>,
}

impl Nodes {
    pub(crate) fn new(scaled: bool) -> Nodes {
        Nodes { chunks: Chunks::default(), scaled }
    }

    /// Initialises the metadata of a claimed slot. The slot is invisible until [`Nodes::mark_inserted`].
    pub(crate) fn init(&self, slot: u32, label: u32, scale: f32, state: SlotState) {
        let scales = if self.scaled { CHUNK_SLOTS } else { 0 };
        let chunk = self.chunks.get_or_init(slot as usize / CHUNK_SLOTS, || NodeChunk {
            label: std::array::from_fn(|_| AtomicU32::new(NONE)),
            inserted_at: std::array::from_fn(|_| AtomicU64::new(NEVER)),
            deleted_at: std::array::from_fn(|_| AtomicU64::new(0)),
            live: std::array::from_fn(|_| AtomicU64::new(0)),
            last_insertion: AtomicU64::new(0),
            state: std::array::from_fn(|_| AtomicU8::new(SlotState::Empty as u8)),
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
    fn at(&self, slot: u32) -> (&NodeChunk, usize) {
        let chunk = self.chunks.get(slot as usize / CHUNK_SLOTS);
        (chunk.expect("the chunk of a slot in use is initialised"), slot as usize % CHUNK_SLOTS)
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

    /// The state of a slot; [`SlotState::Empty`] for a slot that was never used.
    pub(crate) fn state(&self, slot: u32) -> SlotState {
        let chunk = self.chunks.get(slot as usize / CHUNK_SLOTS);
        match chunk.map_or(0, |chunk| chunk.state[slot as usize % CHUNK_SLOTS].load(Acquire)) {
            0 => SlotState::Empty,
            1 => SlotState::Pending,
            2 => SlotState::Linked,
            _ => SlotState::Skipped,
        }
    }

    pub(crate) fn set_state(&self, slot: u32, state: SlotState) {
        let (chunk, at) = self.at(slot);
        chunk.state[at].store(state as u8, Release);
    }

    /// The slot that follows this one in the tail.
    pub(crate) fn next(&self, slot: u32) -> u32 {
        let (chunk, at) = self.at(slot);
        chunk.next[at].load(Acquire)
    }

    pub(crate) fn set_next(&self, slot: u32, next: u32) {
        let (chunk, at) = self.at(slot);
        chunk.next[at].store(next, Release);
    }

    pub(crate) fn inserted_at(&self, slot: u32) -> u64 {
        let (chunk, at) = self.at(slot);
        chunk.inserted_at[at].load(Acquire)
    }

    pub(crate) fn deleted_at(&self, slot: u32) -> u64 {
        let (chunk, at) = self.at(slot);
        chunk.deleted_at[at].load(Acquire)
    }

    #[inline]
    pub(crate) fn is_live(&self, slot: u32) -> bool {
        let (word, bit) = self.live(slot);
        word.load(Acquire) & bit != 0
    }

    /// Whether a slot is live, or was deleted so late that a reader pinned at epoch `oldest` or later may see it.
    #[inline]
    pub(crate) fn may_be_visible(&self, slot: u32, oldest: u64) -> bool {
        self.is_live(slot) || self.deleted_at(slot) > oldest
    }

    /// The word that contains the live bit of a slot, and the bit.
    #[inline]
    fn live(&self, slot: u32) -> (&AtomicU64, u64) {
        let (chunk, at) = self.at(slot);
        (&chunk.live[at / WORD_BITS], 1 << (at % WORD_BITS))
    }

    /// Whether a reader pinned at `epoch` sees the slot. A slot that was never used is not visible.
    pub(crate) fn is_visible(&self, slot: u32, epoch: u64) -> bool {
        let Some(chunk) = self.chunks.get(slot as usize / CHUNK_SLOTS) else { return false };
        let at = slot as usize % CHUNK_SLOTS;
        // `mark_inserted` writes in the opposite order: a reader that sees the new deletion epoch also sees the
        // new insertion epoch.
        epoch < chunk.deleted_at[at].load(Acquire) && chunk.inserted_at[at].load(Acquire) <= epoch
    }

    pub(crate) fn mark_inserted(&self, slot: u32, epoch: u64) {
        let (chunk, at) = self.at(slot);
        chunk.last_insertion.fetch_max(epoch, Release);
        chunk.inserted_at[at].store(epoch, Release);
        chunk.deleted_at[at].store(NEVER, Release);
        let (word, bit) = self.live(slot);
        word.fetch_or(bit, Release);
    }

    /// A predicate on slots: whether they were inserted at or before `epoch`. For chunks without later insertions,
    /// `last_insertion` saves the cache miss of looking up the epoch of the slot.
    pub(crate) fn inserted_by(&self, epoch: u64) -> impl FnMut(u32) -> bool {
        let (mut chunk_index, mut chunk) = (usize::MAX, None);
        move |slot| {
            if slot as usize / CHUNK_SLOTS != chunk_index {
                chunk_index = slot as usize / CHUNK_SLOTS;
                chunk = self.chunks.get(chunk_index);
            }
            let chunk = chunk.expect("the chunk of a slot in use is initialised");
            // Loaded again for every slot: a reader that found the slot sees its insertion here.
            chunk.last_insertion.load(Acquire) <= epoch
                || chunk.inserted_at[slot as usize % CHUNK_SLOTS].load(Acquire) <= epoch
        }
    }

    pub(crate) fn mark_deleted(&self, slot: u32, epoch: u64) {
        let (chunk, at) = self.at(slot);
        chunk.deleted_at[at].store(epoch, Release);
        let (word, bit) = self.live(slot);
        word.fetch_and(!bit, Release);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.bytes() + self.chunks.iter().map(|chunk| size_of_val(&*chunk.scale)).sum::<usize>()
    }
}
