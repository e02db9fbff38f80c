//! An epoch counter that readers pin, so that writers know which data readers may still use.
//!
//! The scheme is epoch-based reclamation (Fraser, "Practical lock-freedom", 2004, section 5.2.3) with one number per
//! reader instead of three generations: a reader registers the epoch in which it started; data hidden at epoch `e`
//! may be reused once [`Epochs::oldest`] is at least `e`.

use std::sync::OnceLock;

use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::atomic::{AtomicU64, fence};
use crate::sync::{Mutex, lock};

/// Entries per block. Another block is appended when all are in use.
const ENTRIES: usize = if cfg!(feature = "shuttle") { 2 } else { 32 };
/// The value of an entry that no reader uses. Epochs are larger.
const VACANT: u64 = 0;

/// The epoch of one reader, on its own cache lines to avoid false sharing.
#[derive(Debug)]
#[repr(align(128))]
struct ReaderEntry(AtomicU64);

#[derive(Debug)]
struct Block {
    entries: [ReaderEntry; ENTRIES],
    next: OnceLock<Box<Block>>,
}

impl Block {
    fn new() -> Block {
        Block { entries: std::array::from_fn(|_| ReaderEntry(AtomicU64::new(VACANT))), next: OnceLock::new() }
    }
}

/// The epoch counter and its readers.
#[derive(Debug)]
pub struct Epochs {
    now: AtomicU64,
    advancing: Mutex<()>,
    first: Block,
}

/// A registered reader. Data that is visible in its epoch is not reused until it is dropped.
#[derive(Debug)]
pub struct Pin<'a> {
    entry: &'a AtomicU64,
    epoch: u64,
}

impl Pin<'_> {
    /// The epoch in which the reader started. Everything published by then is visible to it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.entry.store(VACANT, Release);
    }
}

impl Default for Epochs {
    fn default() -> Epochs {
        Epochs { now: AtomicU64::new(VACANT + 1), advancing: Mutex::new(()), first: Block::new() }
    }
}

impl Epochs {
    /// Registers a reader. Never blocks.
    pub fn pin(&self) -> Pin<'_> {
        let mut epoch = self.now.load(Acquire);
        let entry = self.acquire_entry(epoch);
        loop {
            // `oldest` has a fence between loading the counter and loading the entries. So either it sees this entry, or
            // this thread sees the counter value that `oldest` loaded.
            fence(SeqCst);
            let now = self.now.load(Acquire);
            if now == epoch {
                return Pin { entry, epoch };
            }
            epoch = now;
            entry.store(epoch, Release);
        }
    }

    /// Acquires a vacant entry.
    fn acquire_entry(&self, epoch: u64) -> &AtomicU64 {
        let start = preferred_entry();
        let mut block = &self.first;
        loop {
            for at in 0..ENTRIES {
                let ReaderEntry(entry) = &block.entries[(start + at) % ENTRIES];
                if entry.load(Relaxed) == VACANT
                    && entry.compare_exchange(VACANT, epoch, SeqCst, Relaxed).is_ok()
                {
                    return entry;
                }
            }
            block = block.next.get_or_init(|| Box::new(Block::new()));
        }
    }

    /// Runs `change` with the next epoch, then makes that epoch current. A reader sees the whole change if its epoch is
    /// at least that one. Changes are serialised.
    pub fn advance(&self, change: impl FnOnce(u64)) -> u64 {
        let _advancing = lock(&self.advancing);
        let next = self.now.load(Relaxed) + 1;
        change(next);
        self.now.store(next, Release);
        next
    }

    /// The lower bound of the epochs of all current and future readers.
    pub fn oldest(&self) -> u64 {
        let mut oldest = self.now.load(Acquire);
        fence(SeqCst);
        let mut block = Some(&self.first);
        while let Some(Block { entries, next }) = block {
            for ReaderEntry(entry) in entries {
                let epoch = entry.load(Acquire);
                if epoch != VACANT {
                    oldest = oldest.min(epoch);
                }
            }
            block = next.get().map(|next| &**next);
        }
        oldest
    }
}

/// The entry that this thread tries first; it differs between threads.
fn preferred_entry() -> usize {
    use std::sync::atomic::AtomicUsize;
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PREFERRED: usize = THREADS.fetch_add(1, Relaxed);
    }
    PREFERRED.with(|preferred| *preferred)
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn oldest_is_the_epoch_of_the_first_live_pin() {
        let epochs = Epochs::default();
        let start = epochs.pin().epoch();
        let first = epochs.pin();
        assert_eq!(epochs.advance(|epoch| assert_eq!(epoch, start + 1)), start + 1);
        let second = epochs.pin();
        epochs.advance(|_| ());
        assert_eq!((first.epoch(), second.epoch(), epochs.oldest()), (start, start + 1, start));
        drop(first);
        assert_eq!(epochs.oldest(), start + 1);
        drop(second);
        assert_eq!(epochs.oldest(), epochs.pin().epoch());
    }

    #[test]
    fn there_may_be_more_pins_than_entries_in_a_block() {
        let epochs = Epochs::default();
        let pins: Vec<_> = (0..3 * ENTRIES + 1).map(|_| epochs.pin()).collect();
        epochs.advance(|_| ());
        assert_eq!(epochs.oldest(), pins[3 * ENTRIES].epoch());
        drop(pins);
        assert_eq!(epochs.oldest(), epochs.pin().epoch());
    }
}
