//! Wakes background threads that wait for work.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// A condition variable that counts notifications. A thread that reads the count before it checks for work misses no
/// notification.
#[derive(Debug, Default)]
pub(crate) struct WakeSignal {
    generation: Mutex<u64>,
    changed: Condvar,
}

impl WakeSignal {
    pub(crate) fn notify(&self) {
        *self.generation.lock() += 1;
        self.changed.notify_all();
    }

    /// The number of notifications so far.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.lock()
    }

    /// Waits until there were more notifications than `seen`.
    pub(crate) fn wait(&self, seen: u64) {
        let mut generation = self.generation.lock();
        self.changed.wait_while(&mut generation, |generation| *generation == seen);
    }

    /// Like [`WakeSignal::wait`], for at most `timeout`.
    pub(crate) fn wait_for(&self, seen: u64, timeout: Duration) {
        let mut generation = self.generation.lock();
        self.changed.wait_while_for(&mut generation, |generation| *generation == seen, timeout);
    }
}
