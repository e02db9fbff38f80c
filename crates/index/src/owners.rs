//! Which slot holds an owner's vector.

use kernels::arena::{CHUNK_SLOTS, Chunks};

use crate::NONE;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Release};

/// A table by owner; one vector each. Changed by one thread at a time, read by all.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    chunks: Chunks<[AtomicU32; CHUNK_SLOTS]>,
}

impl Owners {
    /// The slot of `owner`, or [`NONE`].
    pub(crate) fn slot(&self, owner: u32) -> u32 {
        let chunk = self.chunks.get(owner as usize / CHUNK_SLOTS);
        chunk.map_or(NONE, |chunk| chunk[owner as usize % CHUNK_SLOTS].load(Acquire))
    }

    /// Sets the slot of `owner` and returns the one before.
    pub(crate) fn replace(&self, owner: u32, slot: u32) -> u32 {
        let at = owner as usize % CHUNK_SLOTS;
        let chunk = self
            .chunks
            .get_or_init(owner as usize / CHUNK_SLOTS, || std::array::from_fn(|_| AtomicU32::new(NONE)));
        let before = chunk[at].load(Acquire);
        chunk[at].store(slot, Release);
        before
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.bytes()
    }
}
