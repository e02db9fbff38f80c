//! A clock that readers pin, so that writers know who may still be looking.
//!
//! The scheme is epoch-based reclamation (Fraser, "Practical lock-freedom", 2004, section 5.2.3)
//! with one number a reader instead of three generations: a reader registers the epoch it started
//! in; what was hidden at epoch `e` may be reused once [`Epochs::oldest`] is at least `e`.

use std::sync::OnceLock;

use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::atomic::{AtomicU64, fence};
use crate::sync::{Mutex, lock};

/// Registers in a block; a further block is chained when all are taken.
const REGISTERS: usize = if cfg!(feature = "shuttle") { 2 } else { 32 };
/// What a register holds while nobody has it. Epochs start above.
const VACANT: u64 = 0;

/// A register on a cache line of its own, so that readers do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
struct Register(AtomicU64);

#[derive(Debug)]
struct Block {
    registers: [Register; REGISTERS],
    next: OnceLock<Box<Block>>,
}

impl Block {
    fn new() -> Block {
        Block { registers: std::array::from_fn(|_| Register(AtomicU64::new(VACANT))), next: OnceLock::new() }
    }
}

/// The clock and its readers.
#[derive(Debug)]
pub struct Epochs {
    now: AtomicU64,
    advancing: Mutex<()>,
    first: Block,
}

/// A reader that started at an epoch; it holds that epoch's view in place until dropped.
#[derive(Debug)]
pub struct Pin<'a> {
    register: &'a AtomicU64,
    epoch: u64,
}

impl Pin<'_> {
    /// The epoch it started in: everything published by then is visible to it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.register.store(VACANT, Release);
    }
}

impl Default for Epochs {
    fn default() -> Epochs {
        Epochs { now: AtomicU64::new(VACANT + 1), advancing: Mutex::new(()), first: Block::new() }
    }
}

impl Epochs {
    /// Registers a reader. Never waits.
    pub fn pin(&self) -> Pin<'_> {
        let mut epoch = self.now.load(Acquire);
        let register = self.register(epoch);
        loop {
            // Either `oldest`, which fences between reading the clock and reading the registers,
            // sees this register, or this thread sees the clock that `oldest` read.
            fence(SeqCst);
            let now = self.now.load(Acquire);
            if now == epoch {
                return Pin { register, epoch };
            }
            epoch = now;
            register.store(epoch, Release);
        }
    }

    /// Takes a vacant register.
    fn register(&self, epoch: u64) -> &AtomicU64 {
        let start = preferred_register();
        let mut block = &self.first;
        loop {
            for at in 0..REGISTERS {
                let Register(register) = &block.registers[(start + at) % REGISTERS];
                if register.load(Relaxed) == VACANT
                    && register.compare_exchange(VACANT, epoch, SeqCst, Relaxed).is_ok()
                {
                    return register;
                }
            }
            block = block.next.get_or_init(|| Box::new(Block::new()));
        }
    }

    /// Runs `change`, then makes its epoch (which it is given) the current one: a pin sees all of
    /// the change if its epoch is at least this one. One change at a time.
    pub fn advance(&self, change: impl FnOnce(u64)) -> u64 {
        let _advancing = lock(&self.advancing);
        let next = self.now.load(Relaxed) + 1;
        change(next);
        self.now.store(next, Release);
        next
    }

    /// No pin that lives, or is yet to be made, has an epoch below this one.
    pub fn oldest(&self) -> u64 {
        let mut oldest = self.now.load(Acquire);
        fence(SeqCst);
        let mut block = Some(&self.first);
        while let Some(Block { registers, next }) = block {
            for Register(register) in registers {
                let epoch = register.load(Acquire);
                if epoch != VACANT {
                    oldest = oldest.min(epoch);
                }
            }
            block = next.get().map(|next| &**next);
        }
        oldest
    }
}

/// Where this thread looks for a register first: a place few others start from.
fn preferred_register() -> usize {
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
    fn oldest_is_the_first_pin_that_lives() {
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
    fn more_pins_than_a_block_has_registers() {
        let epochs = Epochs::default();
        let pins: Vec<_> = (0..3 * REGISTERS + 1).map(|_| epochs.pin()).collect();
        epochs.advance(|_| ());
        assert_eq!(epochs.oldest(), pins[3 * REGISTERS].epoch());
        drop(pins);
        assert_eq!(epochs.oldest(), epochs.pin().epoch());
    }
}
