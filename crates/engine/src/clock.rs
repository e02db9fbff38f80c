//! What time it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// What time it is, for expiry.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;
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
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    latest_ms: AtomicU64,
}

impl Time {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Time {
        Time { clock, latest_ms: AtomicU64::new(0) }
    }

    /// Unix milliseconds; never before what was answered since the last [`Time::follow`].
    pub(crate) fn now_ms(&self) -> u64 {
        let now_ms = self.clock.now_ms();
        // Most of the time somebody has seen this millisecond already: no need to contend for it.
        let latest_ms = self.latest_ms.load(Ordering::Acquire);
        if now_ms <= latest_ms {
            return latest_ms;
        }
        self.latest_ms.fetch_max(now_ms, Ordering::AcqRel).max(now_ms)
    }

    /// Whether the clock was put back, and time stands still.
    pub(crate) fn stands(&self) -> bool {
        self.clock.now_ms() < self.latest_ms.load(Ordering::Acquire)
    }

    /// Follows the clock back: nothing is left that had ended by `seen_ms`, the latest moment seen. If somebody has
    /// seen a later one meanwhile, time stands there.
    pub(crate) fn follow(&self, seen_ms: u64) {
        let now_ms = self.clock.now_ms();
        if now_ms < seen_ms {
            let _ = self.latest_ms.compare_exchange(seen_ms, now_ms, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}
