//! Which slot holds an label's vector.

use kernels::arena::{CHUNK_SLOTS, Chunks};

use crate::NONE;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Release};

/// A table by label; one vector each. Changed by one thread at a time, read by all.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    chunks: Chunks<[AtomicU32; CHUNK_SLOTS]>,
}

impl Labels {
    /// The slot of `label`, or [`NONE`].
    pub(crate) fn slot(&self, label: u32) -> u32 {
        let chunk = self.chunks.get(label as usize / CHUNK_SLOTS);
        chunk.map_or(NONE, |chunk| chunk[label as usize % CHUNK_SLOTS].load(Acquire))
    }

    /// Those of `labels` that have a slot, with it. Labels near each other are found faster than one by one.
    pub(crate) fn slots(&self, labels: impl Iterator<Item = u32>) -> impl Iterator<Item = (u32, u32)> {
        let (mut place, mut chunk) = (usize::MAX, None);
        labels.filter_map(move |label| {
            if label as usize / CHUNK_SLOTS != place {
                place = label as usize / CHUNK_SLOTS;
                chunk = self.chunks.get(place);
            }
            let slot = chunk?[label as usize % CHUNK_SLOTS].load(Acquire);
            (slot != NONE).then_some((label, slot))
        })
    }

    /// Sets the slot of `label` and returns the one before.
    pub(crate) fn replace(&self, label: u32, slot: u32) -> u32 {
        let at = label as usize % CHUNK_SLOTS;
        let chunk = self
            .chunks
            .get_or_init(label as usize / CHUNK_SLOTS, || std::array::from_fn(|_| AtomicU32::new(NONE)));
        let before = chunk[at].load(Acquire);
        chunk[at].store(slot, Release);
        before
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.bytes()
    }
}
