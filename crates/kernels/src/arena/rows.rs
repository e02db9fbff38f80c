//! Rows of bytes that are written once, published, and read without locks.
//!
//! A slot is *free*, then *claimed* (owned by one writer, not readable), then *published* (readable, never written),
//! then *retired* (hidden from new readers; older ones may still read it), and free again once [`Epochs::oldest`] has
//! passed its retirement.
//!
//! A row may consist of parts, which are stored in separate tables, so that reading one part of many rows does not
//! load the others into the cache.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::{CHUNK_SLOTS, Chunks, Epochs, Pin};
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{Mutex, lock};

/// Rows start on cache lines if that wastes at most a 64th of a row.
const LINE: usize = 64;
/// Processors prefetch cache lines in pairs.
const ALIGN: usize = 2 * LINE;
const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = CHUNK_SLOTS.div_ceil(WORD_BITS);

/// A growing table of rows with the same parts.
#[derive(Debug)]
pub struct Rows {
    parts: Box<[Part]>,
    row_bytes: usize,
    chunk_bytes: usize,
    epochs: Epochs,
    chunks: Chunks<Chunk>,
    slots: Mutex<FreeSlots>,
}

/// The location of a part of the rows in a chunk.
#[derive(Debug)]
struct Part {
    first: usize,
    stride: usize,
    bytes: usize,
}

/// The slots that are not in use.
#[derive(Debug, Default)]
struct FreeSlots {
    /// Slots from this one on were never used.
    fresh: u32,
    free: Vec<u32>,
    /// Retired slots with the epoch of their retirement.
    retired: Vec<(u64, u32)>,
}

#[derive(Debug)]
struct Chunk {
    /// One bit per slot: whether it is published.
    published: [AtomicU64; WORDS],
    bytes: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk owns its allocation. The protocol of `Rows` decides which thread may access which row and when (see
// `Row::part` and `Rows::claim_slot`); it does not depend on the thread that owns the chunk.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(bytes: usize) -> Chunk {
        let layout = Layout::from_size_align(bytes, ALIGN).expect("a chunk fits into the address space");
        // SAFETY: the layout is not empty, because `Rows::new` rejects rows without bytes.
        let Some(bytes) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Chunk { published: std::array::from_fn(|_| AtomicU64::new(0)), bytes, layout }
    }

    /// The word that contains the bit of a slot, and the bit.
    fn published(&self, at: usize) -> (&AtomicU64, u64) {
        (&self.published[at / WORD_BITS], 1 << (at % WORD_BITS))
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `Chunk::new` with this layout, and no reference outlives the chunk.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) };
    }
}

/// A slot that is claimed and written, but not published. Dropping it frees the slot.
#[derive(Debug)]
pub struct Claim<'a> {
    rows: &'a Rows,
    slot: u32,
}

impl Claim<'_> {
    /// The number of the slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Makes the row readable.
    pub fn publish(self) -> u32 {
        let slot = self.slot;
        let (chunk, at) = self.rows.chunk(slot).expect("a claimed slot has a chunk");
        let (word, bit) = chunk.published(at);
        word.fetch_or(bit, Release);
        std::mem::forget(self);
        slot
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.rows.lock().free.push(self.slot);
    }
}

/// A reader. The rows it has returned do not change while it exists.
#[derive(Debug)]
pub struct Guard<'a> {
    rows: &'a Rows,
    pin: Pin<'a>,
}

impl Guard<'_> {
    /// The epoch in which the reader started.
    pub fn epoch(&self) -> u64 {
        self.pin.epoch()
    }

    /// The row at `slot`, if it is published.
    #[inline]
    pub fn row(&self, slot: u32) -> Option<Row<'_>> {
        let (chunk, at) = self.rows.chunk(slot)?;
        let (word, bit) = chunk.published(at);
        (word.load(Acquire) & bit != 0).then_some(Row { parts: &self.rows.parts, chunk, at })
    }
}

/// A published row, as returned by a [`Guard`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    parts: &'a [Part],
    chunk: &'a Chunk,
    /// The position of the row in the chunk. Only [`Guard::row`] creates a `Row`, for a published slot.
    at: usize,
}

impl<'a> Row<'a> {
    /// A part of the row.
    ///
    /// # Panics
    ///
    /// If there is no such part.
    #[inline]
    pub fn part(&self, number: usize) -> &'a [u8] {
        let Part { first, stride, bytes } = self.parts[number];
        // SAFETY: in bounds: `at` is below CHUNK_SLOTS, a stride covers the part, and the chunk contains CHUNK_SLOTS
        // strides from `first` on. Initialised: chunks are allocated zeroed. Not written while the slice exists: only
        // `Rows::claim_slot` writes, and only to slots that are neither published nor retired at an epoch above that of
        // a live pin. This slot was published, and the acquiring load saw the write before that. If it is retired later,
        // or was already and this pin is too old to have seen it, the epoch of the retirement is above the epoch of
        // this pin (a pin of that epoch or later sees the bit cleared), so the slot is not reused before the guard,
        // which the slice borrows, is dropped.
        unsafe { std::slice::from_raw_parts(self.chunk.bytes.as_ptr().add(first + self.at * stride), bytes) }
    }

    /// The parts of the row, in order.
    pub fn parts(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.parts.len()).map(move |number| self.part(number))
    }
}

impl PartialEq for Row<'_> {
    fn eq(&self, other: &Row<'_>) -> bool {
        self.parts().eq(other.parts())
    }
}

impl Rows {
    /// Creates an empty table of rows whose parts have the given numbers of bytes.
    ///
    /// # Panics
    ///
    /// If there are no parts, or a part has 0 bytes or more than 2³⁰.
    pub fn new(parts: &[usize]) -> Rows {
        assert!(!parts.is_empty(), "a row must have at least one part");
        let mut chunk_bytes = 0;
        let part = |&bytes: &usize| {
            assert!((1..=1 << 30).contains(&bytes), "a part must have 1 to 2^30 bytes, not {bytes}");
            let stride = bytes.next_multiple_of((bytes / 64).next_power_of_two().clamp(4, LINE));
            let first = chunk_bytes;
            chunk_bytes = (first + stride * CHUNK_SLOTS).next_multiple_of(ALIGN);
            Part { first, stride, bytes }
        };
        Rows {
            parts: parts.iter().map(part).collect(),
            row_bytes: parts.iter().sum(),
            chunk_bytes,
            epochs: Epochs::default(),
            chunks: Chunks::default(),
            slots: Mutex::new(FreeSlots::default()),
        }
    }

    /// Starts a reader. Never blocks.
    pub fn pin(&self) -> Guard<'_> {
        Guard { rows: self, pin: self.epochs.pin() }
    }

    /// The epochs that readers are pinned to.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// All slots used so far are below this one.
    pub fn end(&self) -> u32 {
        self.lock().fresh
    }

    /// Number of slots for which memory is allocated.
    pub fn capacity(&self) -> usize {
        self.chunks.iter().count() * CHUNK_SLOTS
    }

    /// Claims a slot, the last one freed if there is one, and writes `row`, the concatenation of its parts, into it.
    ///
    /// # Panics
    ///
    /// If the length of `row` is not that of the rows of the table, or all `u32::MAX` slots are in use.
    pub fn claim(&self, row: &[u8]) -> Claim<'_> {
        let free = self.lock().free.pop();
        let slot = free.unwrap_or_else(|| self.fresh_slot());
        self.claim_slot(slot, row)
    }

    /// Claims the next slot that was never used, and writes `row` into it.
    ///
    /// # Panics
    ///
    /// As [`Rows::claim`].
    pub fn claim_fresh(&self, row: &[u8]) -> Claim<'_> {
        let slot = self.fresh_slot();
        self.claim_slot(slot, row)
    }

    /// Frees the next slot that was never used.
    pub fn skip_fresh(&self) {
        let slot = self.fresh_slot();
        self.lock().free.push(slot);
    }

    fn fresh_slot(&self) -> u32 {
        let mut slots = self.lock();
        assert!(slots.fresh < u32::MAX, "all slots are in use");
        slots.fresh += 1;
        slots.fresh - 1
    }

    /// Writes a slot that was just taken out of `slots`, so that no other thread owns it.
    fn claim_slot(&self, slot: u32, row: &[u8]) -> Claim<'_> {
        let claim = Claim { rows: self, slot };
        assert_eq!(row.len(), self.row_bytes, "a row must have the length of the rows of the table");
        let chunk = self.chunks.get_or_init(slot as usize / CHUNK_SLOTS, || Chunk::new(self.chunk_bytes));
        let at = slot as usize % CHUNK_SLOTS;
        let mut rest = row;
        for &Part { first, stride, bytes } in &self.parts {
            let part;
            (part, rest) = rest.split_at(bytes);
            // SAFETY: in bounds, as in `Row::part`. `part` does not overlap the destination: that would need a shared
            // slice of this slot, and there is none, because the slot was never published, or every pin that could have
            // read it is gone (`Rows::reclaim`) and its reads happened before.
            unsafe {
                let to = chunk.bytes.as_ptr().add(first + at * stride);
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, bytes);
            }
        }
        claim
    }

    /// Hides published slots from readers that start later. Ignores slots that are not published.
    pub fn retire(&self, slots: &[u32]) {
        let hidden: Vec<u32> = slots
            .iter()
            .copied()
            .filter(|&slot| {
                self.chunk(slot).is_some_and(|(chunk, at)| {
                    let (word, bit) = chunk.published(at);
                    word.fetch_and(!bit, Relaxed) & bit != 0
                })
            })
            .collect();
        // Advancing the epoch publishes the cleared bits.
        let epoch = self.epochs.advance(|_| ());
        self.lock().retired.extend(hidden.into_iter().map(|slot| (epoch, slot)));
    }

    /// Frees the retired slots that no reader can use any more, and returns their number.
    pub fn reclaim(&self) -> usize {
        let oldest = self.epochs.oldest();
        let mut slots = self.lock();
        let FreeSlots { free, retired, .. } = &mut *slots;
        let before = free.len();
        free.extend(retired.extract_if(.., |(epoch, _)| *epoch <= oldest).map(|(_, slot)| slot));
        free.len() - before
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let slots = self.lock();
        self.chunks.iter().map(|chunk| chunk.layout.size()).sum::<usize>()
            + self.chunks.bytes()
            + slots.free.capacity() * size_of::<u32>()
            + slots.retired.capacity() * size_of::<(u64, u32)>()
    }

    #[inline]
    fn chunk(&self, slot: u32) -> Option<(&Chunk, usize)> {
        Some((self.chunks.get(slot as usize / CHUNK_SLOTS)?, slot as usize % CHUNK_SLOTS))
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = FreeSlots> + '_ {
        lock(&self.slots)
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_visible_from_publication_to_retirement() {
        let rows = Rows::new(&[5]);
        let early = rows.pin();
        let claim = rows.claim(b"hello");
        assert!(early.row(claim.slot()).is_none());
        let slot = claim.publish();
        assert_eq!(early.row(slot).unwrap().part(0), b"hello");
        rows.retire(&[slot]);
        assert!(rows.pin().row(slot).is_none());
        assert!(early.row(u32::MAX).is_none() && early.row(4000).is_none());
    }

    #[test]
    fn a_slot_is_reused_only_after_every_older_reader_has_finished() {
        let rows = Rows::new(&[4]);
        let slot = rows.claim(b"aaaa").publish();
        let reader = rows.pin();
        let row = reader.row(slot).unwrap();
        rows.retire(&[slot]);
        assert_eq!(rows.reclaim(), 0);
        assert_ne!(rows.claim(b"bbbb").publish(), slot);
        let late = rows.pin();
        assert_eq!(row.part(0), b"aaaa");
        drop(reader);
        // A reader that started after the retirement does not delay reclamation.
        assert_eq!(rows.reclaim(), 1);
        assert_eq!(rows.claim(b"cccc").publish(), slot);
        assert_eq!(late.row(slot).unwrap().part(0), b"cccc");
        assert_eq!(rows.end(), 2);
    }

    #[test]
    fn retiring_twice_or_before_publication_reclaims_nothing() {
        let rows = Rows::new(&[1]);
        let slot = rows.claim(b"a").publish();
        let claim = rows.claim(b"b");
        rows.retire(&[slot, slot, claim.slot(), 77_777]);
        assert_eq!(rows.reclaim(), 1);
        rows.retire(&[slot]);
        assert_eq!(rows.reclaim(), 0);
        let unpublished = claim.slot();
        drop(claim);
        assert_eq!(rows.claim(b"c").slot(), unpublished);
    }

    #[test]
    fn slots_can_be_laid_out_with_gaps() {
        let rows = Rows::new(&[2]);
        rows.claim_fresh(b"00").publish();
        rows.skip_fresh();
        assert_eq!(rows.claim_fresh(b"22").publish(), 2);
        assert_eq!(rows.claim(b"11").publish(), 1);
    }

    #[test]
    fn rows_of_every_length_do_not_overlap() {
        for row_bytes in (1..200).chain([1536, 16_384]) {
            let rows = Rows::new(&[row_bytes]);
            for value in 0..5 {
                rows.claim(&vec![value; row_bytes]).publish();
            }
            let guard = rows.pin();
            for value in 0..5 {
                assert_eq!(guard.row(u32::from(value)).unwrap().part(0), vec![value; row_bytes]);
            }
        }
    }

    #[test]
    fn the_parts_of_a_row_read_back_as_written() {
        for parts in [&[1][..], &[16, 384, 384], &[3, 200, 1, 77]] {
            let rows = Rows::new(parts);
            let bytes: usize = parts.iter().sum();
            let row = |value: usize| (0..bytes).map(|at| (value * 31 + at) as u8).collect::<Vec<u8>>();
            (0..3 * CHUNK_SLOTS)
                .for_each(|value| assert_eq!(rows.claim(&row(value)).publish(), value as u32));
            let guard = rows.pin();
            for value in 0..3 * CHUNK_SLOTS {
                let guarded = guard.row(value as u32).unwrap();
                assert!(guarded.parts().map(<[u8]>::len).eq(parts.iter().copied()));
                assert_eq!(guarded.parts().collect::<Vec<_>>().concat(), row(value));
                assert_eq!(guarded == guard.row(0).unwrap(), row(value) == row(0));
            }
        }
    }

    #[test]
    #[should_panic(expected = "the length of the rows of the table")]
    fn rejects_a_row_of_another_length() {
        Rows::new(&[4]).claim(b"abc");
    }

    #[test]
    fn readers_never_see_a_row_change() {
        let rows = Rows::new(&[64]);
        let newest = AtomicU64::new(u64::from(rows.claim(&[0; 64]).publish()));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let guard = rows.pin();
                        let slot = u32::try_from(newest.load(Acquire)).unwrap();
                        if let Some(row) = guard.row(slot) {
                            let row = row.part(0);
                            let value = row[0];
                            std::hint::spin_loop();
                            assert!(row.iter().all(|&byte| byte == value));
                        }
                    }
                });
            }
            for value in 0..20_000u32 {
                let old = u32::try_from(newest.load(Acquire)).unwrap();
                newest.store(u64::from(rows.claim(&[value as u8; 64]).publish()), Release);
                rows.retire(&[old]);
                rows.reclaim();
            }
        });
        assert!(rows.end() < 20_000, "slots were reused");
    }
}
