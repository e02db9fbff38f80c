//! How long a worker has been running one step. A hanging step can only be reported: nothing can take its thread back.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering};

/// Since when a worker is busy, if it is.
pub(super) struct Heartbeat {
    epoch: Instant,
    /// Milliseconds after the epoch, plus one; 0 while the worker waits for work.
    busy_since: AtomicU64,
}

impl Heartbeat {
    pub(super) fn new() -> Heartbeat {
        Heartbeat { epoch: Instant::now(), busy_since: AtomicU64::new(0) }
    }

    /// Runs `work`, and returns how long it took.
    pub(super) fn during(&self, work: impl FnOnce()) -> Duration {
        let start = self.epoch.elapsed();
        let millis = u64::try_from(start.as_millis()).unwrap_or(u64::MAX - 1);
        self.busy_since.store(millis + 1, Ordering::Relaxed);
        work();
        self.busy_since.store(0, Ordering::Relaxed);
        self.epoch.elapsed().saturating_sub(start)
    }

    /// How long the current step has been running.
    pub(super) fn busy_for(&self) -> Option<Duration> {
        let since = self.busy_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(since)))
    }
}
