//! The map from labels to slots.

use kernels::arena::{CHUNK_SLOTS, Chunks};

use crate::NONE;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Release};

/// For each label, the slot of its vector. A label has at most one vector; the caller decides how labels relate to
/// documents. The table covers the whole range of labels in use with 4 bytes each, so labels should be dense. One
/// thread at a time writes, any number of threads read.
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

    /// The labels that have a vector, with their slots. Looking up neighbouring labels together is faster than one
    /// by one.
    pub(crate) fn slots(&self, labels: impl Iterator<Item = u32>) -> impl Iterator<Item = (u32, u32)> {
        let (mut chunk_index, mut chunk) = (usize::MAX, None);
        labels.filter_map(move |label| {
            if label as usize / CHUNK_SLOTS != chunk_index {
                chunk_index = label as usize / CHUNK_SLOTS;
                chunk = self.chunks.get(chunk_index);
            }
            let slot = chunk?[label as usize % CHUNK_SLOTS].load(Acquire);
            (slot != NONE).then_some((label, slot))
        })
    }

    /// Sets the slot of `label` and returns the previous one.
    pub(crate) fn replace(&self, label: u32, slot: u32) -> u32 {
        let at = label as usize % CHUNK_SLOTS;
        let chunk = self
            .chunks
            .get_or_init(label as usize / CHUNK_SLOTS, || std::array::from_fn(|_| AtomicU32::new(NONE)));
        let previous = chunk[at].load(Acquire);
        chunk[at].store(slot, Release);
        previous
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.bytes()
    }
}
