//! How a background thread sleeps until there is work.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// Counts its rings, so that one between looking for work and going to sleep is not missed.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rings.lock() += 1;
        self.rung.notify_all();
    }

    /// How often it has rung.
    pub(crate) fn heard(&self) -> u64 {
        *self.rings.lock()
    }

    /// Sleeps until it has rung more often than `heard`.
    pub(crate) fn wait(&self, heard: u64) {
        let mut rings = self.rings.lock();
        self.rung.wait_while(&mut rings, |rings| *rings == heard);
    }

    /// [`Bell::wait`], for no longer than `timeout`.
    pub(crate) fn wait_for(&self, heard: u64, timeout: Duration) {
        let mut rings = self.rings.lock();
        self.rung.wait_while_for(&mut rings, |rings| *rings == heard, timeout);
    }
}
