//! How a background thread sleeps until there is work.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// Counts its rings, so that one between looking for work and going to sleep is not missed.
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

    /// How often it has rung.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.lock()
    }

    /// Sleeps until it has rung more often than `seen`.
    pub(crate) fn wait(&self, seen: u64) {
        let mut generation = self.generation.lock();
        self.changed.wait_while(&mut generation, |generation| *generation == seen);
    }

    /// [`WakeSignal::wait`], for no longer than `timeout`.
    pub(crate) fn wait_for(&self, seen: u64, timeout: Duration) {
        let mut generation = self.generation.lock();
        self.changed.wait_while_for(&mut generation, |generation| *generation == seen, timeout);
    }
}
