//! Progress of opening an engine.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What an engine is loading, for other threads to read.
#[derive(Debug, Default)]
pub struct Progress {
    stage: Mutex<String>,
    done: AtomicU64,
}

impl Progress {
    pub(crate) fn start(&self, stage: String) {
        *self.stage.lock() = stage;
        self.done.store(0, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, by: usize) {
        self.done.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// A description; empty before anything has started.
    pub fn message(&self) -> String {
        let stage = self.stage.lock().clone();
        match self.done.load(Ordering::Relaxed) {
            0 => stage,
            done => format!("{stage}: {done} read"),
        }
    }
}
