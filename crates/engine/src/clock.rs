//! The system clock, and the time by which documents expire.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A source of time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Unix milliseconds, used for expiry.
    fn now_ms(&self) -> u64;

    /// Time since a fixed moment in the past, used for delays. Must be monotonic.
    fn elapsed(&self) -> Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGAN.elapsed()
    }
}

/// The system clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock set before 1970 reads as 1970, so that nothing expires.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The engine's time: that of a clock, except that it does not go backwards while expired documents still exist.
///
/// A document that has expired must stay hidden, because the indexes have already removed it. If the clock is set
/// back, this time therefore stays at the latest time that was read until every document that expired by then is
/// deleted. After that it follows the clock again.
#[derive(Debug)]
pub(crate) struct EngineClock {
    clock: Arc<dyn Clock>,
    latest_ms: AtomicU64,
}

impl EngineClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> EngineClock {
        EngineClock { clock, latest_ms: AtomicU64::new(0) }
    }

    /// Unix milliseconds. Never decreases between calls of [`EngineClock::follow_clock`].
    pub(crate) fn now_ms(&self) -> u64 {
        let mut latest_ms = self.latest_ms.load(Ordering::Acquire);
        loop {
            // Read after the value it is compared with: a time from before the clock was set back must not become the
            // latest time after [`EngineClock::follow_clock`].
            let now_ms = self.clock.now_ms();
            if now_ms <= latest_ms {
                return latest_ms;
            }
            match self.latest_ms.compare_exchange(latest_ms, now_ms, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return now_ms,
                Err(current_ms) => latest_ms = current_ms,
            }
        }
    }

    /// See [`Clock::elapsed`].
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether the clock was set back and this time does not advance.
    pub(crate) fn is_frozen(&self) -> bool {
        self.clock.now_ms() < self.latest_ms.load(Ordering::Acquire)
    }

    /// Follows a clock that was set back. Call it once every document that expired by `seen_ms`, the latest time
    /// read, is deleted. Does nothing if a later time was read meanwhile.
    pub(crate) fn follow_clock(&self, seen_ms: u64) {
        let now_ms = self.clock.now_ms();
        if now_ms < seen_ms {
            let _ = self.latest_ms.compare_exchange(seen_ms, now_ms, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is set back, and followed, in the middle of a read.
    #[derive(Debug)]
    struct RewindableClock {
        ms: AtomicU64,
        during: std::sync::OnceLock<(Arc<EngineClock>, u64)>,
        jumped: std::sync::atomic::AtomicBool,
    }

    impl Clock for RewindableClock {
        fn now_ms(&self) -> u64 {
            let read = self.ms.load(Ordering::SeqCst);
            if let Some((time, back_ms)) = self.during.get()
                && !self.jumped.swap(true, Ordering::SeqCst)
            {
                assert_eq!(time.now_ms(), read, "another reader has seen it");
                self.ms.store(*back_ms, Ordering::SeqCst);
                assert!(time.is_frozen());
                time.follow_clock(read);
            }
            read
        }
    }

    #[test]
    fn a_time_read_before_a_clock_jump_does_not_return() {
        let clock = Arc::new(RewindableClock {
            ms: AtomicU64::new(500),
            during: std::sync::OnceLock::new(),
            jumped: false.into(),
        });
        let time = Arc::new(EngineClock::new(clock.clone()));
        assert_eq!(time.now_ms(), 500);
        clock.ms.store(1_000, Ordering::SeqCst);
        clock.during.set((time.clone(), 900)).unwrap();
        assert_eq!(time.now_ms(), 900);
        assert!(!time.is_frozen());
    }

    #[test]
    fn time_is_frozen_until_it_may_follow_the_clock() {
        let clock = Arc::new(RewindableClock {
            ms: AtomicU64::new(1_000),
            during: std::sync::OnceLock::new(),
            jumped: false.into(),
        });
        let time = EngineClock::new(clock.clone());
        assert_eq!(time.now_ms(), 1_000);
        clock.ms.store(900, Ordering::SeqCst);
        assert_eq!((time.now_ms(), time.is_frozen()), (1_000, true));
        time.follow_clock(999);
        assert_eq!(time.now_ms(), 1_000, "a later time was read");
        time.follow_clock(1_000);
        assert_eq!((time.now_ms(), time.is_frozen()), (900, false));
        clock.ms.store(1_100, Ordering::SeqCst);
        assert_eq!(time.now_ms(), 1_100);
    }
}
