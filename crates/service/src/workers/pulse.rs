//! How long a worker has been at one piece of work: what hangs is told, since nothing can take its thread back.

use std::time::{Duration, Instant};

use super::super::sync::{AtomicU64, Ordering};

/// Since when a worker is busy, if it is.
pub(super) struct Pulse {
    epoch: Instant,
    /// Milliseconds after the epoch, and one; 0 while it waits for work.
    busy_since: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse { epoch: Instant::now(), busy_since: AtomicU64::new(0) }
    }

    /// Does `work`, and says how long it took.
    pub(super) fn during(&self, work: impl FnOnce()) -> Duration {
        let began = self.epoch.elapsed();
        let millis = u64::try_from(began.as_millis()).unwrap_or(u64::MAX - 1);
        self.busy_since.store(millis + 1, Ordering::Relaxed);
        work();
        self.busy_since.store(0, Ordering::Relaxed);
        self.epoch.elapsed().saturating_sub(began)
    }

    /// How long it has been busy with what it is at.
    pub(super) fn busy_for(&self) -> Option<Duration> {
        let since = self.busy_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(since)))
    }
}
