//! The edges of the graph: for each slot, one list of links per layer.

use kernels::arena::{CHUNK_SLOTS, Chunks};
use kernels::simd::distance;

use crate::NONE;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Maximum number of layers.
const LAYERS_MAX: usize = 32;
const LINE_BYTES: usize = 64;
const LINE_WORDS: usize = LINE_BYTES / size_of::<u32>();

/// The lists of links. A list ends at its capacity or at the first [`NONE`]. A reader of a list that is being
/// rewritten sees old links, new links or a mixture; each of them is valid.
#[derive(Debug)]
pub(crate) struct Links {
    m: usize,
    /// For each layer from 1 upwards: a slot is on the layer if its hash is below the threshold.
    thresholds: Vec<u64>,
    chunks: Chunks<LinkChunk>,
}

#[derive(Debug)]
struct LinkChunk {
    locks: Box<[Mutex<()>]>,
    lowest: Box<[AtomicU32]>,
    /// Index of the first word in `lowest` that starts a cache line.
    aligned: usize,
    /// For each slot, the number of its first list in `upper`.
    first_upper: Box<[u16]>,
    upper: Box<[AtomicU32]>,
}

fn none() -> AtomicU32 {
    AtomicU32::new(NONE)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014), which distributes slot numbers evenly.
fn hash(slot: u32) -> u64 {
    let mut z = u64::from(slot).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Links {
    /// Creates an empty graph with up to `m` links per list on the upper layers and `2 * m` on layer 0.
    pub(crate) fn new(m: usize) -> Links {
        let thresholds = std::iter::successors(Some(u64::MAX / m as u64), |t| Some(t / m as u64));
        let thresholds = thresholds.take_while(|&t| t > 0).take(LAYERS_MAX - 1).collect();
        Links { m, thresholds, chunks: Chunks::default() }
    }

    /// Maximum number of links in a list on this layer.
    pub(crate) fn capacity(&self, layer: usize) -> usize {
        if layer == 0 { 2 * self.m } else { self.m }
    }

    /// The highest layer of a slot: `floor(-ln(u) / ln(m))` (Malkov and Yashunin 2016, section 4), where `u` is
    /// derived from the slot number, so the space for the lists of a slot never changes.
    pub(crate) fn level(&self, slot: u32) -> usize {
        let hash = hash(slot);
        self.thresholds.iter().take_while(|&&threshold| hash < threshold).count()
    }

    /// Prepares empty lists for a slot that is not linked yet.
    pub(crate) fn clear(&self, slot: u32) {
        let chunk_index = slot as usize / CHUNK_SLOTS;
        self.chunks.get_or_init(chunk_index, || self.new_chunk(chunk_index));
        for layer in 0..=self.level(slot) {
            self.set(slot, layer, &[]);
        }
    }

    fn new_chunk(&self, chunk_index: usize) -> LinkChunk {
        let mut lists = 0;
        let first_upper = (0..CHUNK_SLOTS)
            .map(|at| {
                let first = u16::try_from(lists).expect("a chunk has fewer than 2^16 upper lists");
                lists += self.level((chunk_index * CHUNK_SLOTS + at) as u32);
                first
            })
            .collect();
        let lowest: Box<[AtomicU32]> =
            (0..self.lowest_words() * CHUNK_SLOTS + LINE_WORDS - 1).map(|_| none()).collect();
        let misaligned = lowest.as_ptr().addr() % LINE_BYTES / size_of::<u32>();
        LinkChunk {
            locks: (0..CHUNK_SLOTS).map(|_| Mutex::new(())).collect(),
            lowest,
            aligned: (LINE_WORDS - misaligned) % LINE_WORDS,
            first_upper,
            upper: (0..lists * self.m).map(|_| none()).collect(),
        }
    }

    #[inline]
    fn at(&self, slot: u32) -> (&LinkChunk, usize) {
        let chunk = self.chunks.get(slot as usize / CHUNK_SLOTS);
        (chunk.expect("the lists of a linked slot are prepared"), slot as usize % CHUNK_SLOTS)
    }

    /// Distance from one list of layer 0 to the next, in words: a whole number of cache lines.
    fn lowest_words(&self) -> usize {
        self.capacity(0).next_multiple_of(LINE_WORDS)
    }

    /// The words of a list.
    #[inline]
    fn words(&self, slot: u32, layer: usize) -> &[AtomicU32] {
        let (chunk, at) = self.at(slot);
        let (words, first) = if layer == 0 {
            (&chunk.lowest, chunk.aligned + at * self.lowest_words())
        } else {
            (&chunk.upper, (usize::from(chunk.first_upper[at]) + layer - 1) * self.m)
        };
        &words[first..first + self.capacity(layer)]
    }

    /// The links of a slot on one of its layers.
    #[inline]
    pub(crate) fn get(&self, slot: u32, layer: usize) -> impl Iterator<Item = u32> {
        self.words(slot, layer).iter().map(|word| word.load(Acquire)).take_while(|&link| link != NONE)
    }

    /// Prefetches the links of a slot.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32, layer: usize) {
        distance::prefetch(self.words(slot, layer));
    }

    /// Replaces a list. If the slot is reachable, the caller holds its lock.
    pub(crate) fn set(&self, slot: u32, layer: usize, links: &[u32]) {
        assert!(links.len() <= self.capacity(layer), "a list has at most as many links as its capacity");
        let links = links.iter().copied().chain(std::iter::repeat(NONE));
        for (word, link) in self.words(slot, layer).iter().zip(links) {
            word.store(link, Release);
        }
    }

    /// Appends a link to a list that is not full.
    pub(crate) fn push(&self, slot: u32, layer: usize, link: u32) {
        let end = self.words(slot, layer).iter().find(|word| word.load(Relaxed) == NONE);
        end.expect("the list is not full").store(link, Release);
    }

    /// Locks the lists of a slot.
    pub(crate) fn lock(&self, slot: u32) -> impl Drop + '_ {
        let (chunk, at) = self.at(slot);
        chunk.locks[at].lock()
    }

    pub(crate) fn bytes(&self) -> usize {
        let chunk = |chunk: &LinkChunk| {
            size_of_val(&*chunk.locks)
                + size_of_val(&*chunk.lowest)
                + size_of_val(&*chunk.first_upper)
                + size_of_val(&*chunk.upper)
        };
        self.chunks.bytes() + self.chunks.iter().map(chunk).sum::<usize>()
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_fewer_slots_by_a_factor_of_m() {
        let links = Links::new(16);
        let mut counts = [0u32; LAYERS_MAX];
        (0..1_000_000).for_each(|slot| counts[links.level(slot)] += 1);
        let share = |level: usize| f64::from(counts[level]) / 1e6;
        assert!((share(0) - 15.0 / 16.0).abs() < 0.002, "{}", share(0));
        assert!((share(1) - 15.0 / 256.0).abs() < 0.002, "{}", share(1));
        assert!(counts[2] > 3000 && counts[2] < 4200 && counts[8] == 0);
    }

    #[test]
    fn lists_do_not_overlap() {
        for m in [2, 3, 16, 48] {
            let links = Links::new(m);
            let lists: Vec<_> = (0..3 * CHUNK_SLOTS as u32)
                .flat_map(|slot| (0..=links.level(slot)).map(move |layer| (slot, layer)))
                .collect();
            let expected = |slot: u32, layer: usize| -> Vec<u32> {
                (0..links.capacity(layer) as u32).map(|i| slot * 1000 + layer as u32 * 100 + i).collect()
            };
            (0..3 * CHUNK_SLOTS as u32).for_each(|slot| links.clear(slot));
            for &(slot, layer) in &lists {
                assert_eq!(links.get(slot, layer).next(), None);
                links.set(slot, layer, &expected(slot, layer));
            }
            for &(slot, layer) in &lists {
                assert_eq!(links.get(slot, layer).collect::<Vec<_>>(), expected(slot, layer));
            }
            links.set(5, 0, &[7]);
            links.push(5, 0, 8);
            assert_eq!(links.get(5, 0).collect::<Vec<_>>(), [7, 8]);
        }
    }
}
