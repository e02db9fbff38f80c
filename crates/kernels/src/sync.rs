//! The locks and atomics of [`crate::arena`]: those of the standard library, or of the model checker.

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};

/// Acquires a lock, ignoring poison.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The standard library is not compiled for ThreadSanitizer (see `make sanitize-threads`), which therefore does not
    // see blocking locks. Polling makes the acquisition visible.
    #[cfg(thread_sanitizer)]
    loop {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    #[cfg(not(thread_sanitizer))]
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
