//! What time it is.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What time it is.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Unix milliseconds, for expiry.
    fn now_ms(&self) -> u64;

    /// Time since some moment in the past, for what has to happen within a time. Nobody puts it back.
    fn elapsed(&self) -> Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGAN.elapsed()
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // Before 1970 it is 1970: then nothing has ended yet.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// An engine's time: that of its clock, but for a clock that is put back.
///
/// What was hidden because its end had come must not be shown again, and could not everywhere: indexes have let it go.
/// So time stands still at the latest moment anybody has seen until all that had ended by then is deleted, and
/// follows the clock back then.
#[derive(Debug)]
pub(crate) struct EngineClock {
    clock: Arc<dyn Clock>,
    latest_ms: AtomicU64,
}

impl EngineClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> EngineClock {
        EngineClock { clock, latest_ms: AtomicU64::new(0) }
    }

    /// Unix milliseconds; never before what was answered since the last [`EngineClock::follow`].
    pub(crate) fn now_ms(&self) -> u64 {
        let mut latest_ms = self.latest_ms.load(Ordering::Acquire);
        loop {
            // Read after what it is compared with: a moment from before the clock was put back must not be taken for
            // the latest once time has followed.
            let now_ms = self.clock.now_ms();
            if now_ms <= latest_ms {
                return latest_ms;
            }
            match self.latest_ms.compare_exchange(latest_ms, now_ms, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return now_ms,
                Err(seen_meanwhile) => latest_ms = seen_meanwhile,
            }
        }
    }

    /// [`Clock::elapsed`].
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether the clock was put back, and time stands still.
    pub(crate) fn is_frozen(&self) -> bool {
        self.clock.now_ms() < self.latest_ms.load(Ordering::Acquire)
    }

    /// Follows the clock back: nothing is left that had ended by `seen_ms`, the latest moment seen. If somebody has
    /// seen a later one meanwhile, time stands there.
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

    /// A clock that is put back, and whose time has followed, while somebody reads it.
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
                assert_eq!(time.now_ms(), read, "somebody else has seen it");
                self.ms.store(*back_ms, Ordering::SeqCst);
                assert!(time.is_frozen());
                time.follow_clock(read);
            }
            read
        }
    }

    #[test]
    fn a_moment_from_before_a_jump_does_not_come_back() {
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
    fn time_stands_until_it_may_follow() {
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
        assert_eq!(time.now_ms(), 1_000, "somebody has seen a later moment");
        time.follow_clock(1_000);
        assert_eq!((time.now_ms(), time.is_frozen()), (900, false));
        clock.ms.store(1_100, Ordering::SeqCst);
        assert_eq!(time.now_ms(), 1_100);
    }
}
