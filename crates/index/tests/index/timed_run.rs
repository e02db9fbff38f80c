//! A time limit for threads that repeat their work; shared by the stress tests of all crates.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A time limit of one second, or `STRESS_SECONDS`.
pub(crate) struct TimedRun {
    until: Instant,
    over: AtomicBool,
}

impl TimedRun {
    pub(crate) fn new() -> TimedRun {
        let seconds = std::env::var("STRESS_SECONDS")
            .map_or(1, |text| text.parse().expect("STRESS_SECONDS is a number"));
        TimedRun { until: Instant::now() + Duration::from_secs(seconds), over: AtomicBool::new(false) }
    }

    /// Repeats `work` until the time is up or another thread has ended.
    pub(crate) fn repeat(&self, mut work: impl FnMut()) {
        let _stop = Stop(&self.over);
        while !self.over.load(Relaxed) && Instant::now() <= self.until {
            work();
        }
    }
}

/// Stops the other threads when one ends, by panic or not.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
