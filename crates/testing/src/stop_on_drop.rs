//! Stops the other threads of a test when its main thread ends.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets a flag when it is dropped. A thread scope joins its threads even if its closure panics, so threads that run
/// until a flag is set need this to end after a failed assertion.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
