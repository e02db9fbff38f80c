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

    /// Those of `owners` that have a slot, with it. Owners near each other are found faster than one by one.
    pub(crate) fn slots(&self, owners: impl Iterator<Item = u32>) -> impl Iterator<Item = (u32, u32)> {
        let (mut place, mut chunk) = (usize::MAX, None);
        owners.filter_map(move |owner| {
            if owner as usize / CHUNK_SLOTS != place {
                place = owner as usize / CHUNK_SLOTS;
                chunk = self.chunks.get(place);
            }
            let slot = chunk?[owner as usize % CHUNK_SLOTS].load(Acquire);
            (slot != NONE).then_some((owner, slot))
        })
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
