//! How far an engine has come with opening.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What is being read, for whoever asks meanwhile.
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

    /// In words; empty before anything has begun.
    pub fn message(&self) -> String {
        let stage = self.stage.lock().clone();
        match self.done.load(Ordering::Relaxed) {
            0 => stage,
            done => format!("{stage}: {done} read"),
        }
    }
}
