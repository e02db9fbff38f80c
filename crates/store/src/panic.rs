//! Converting panics of redb into errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::StoreError;

/// Runs a step that reads or writes through redb, and converts a panic into an error. redb may panic
/// on a damaged file when it finds an invariant violated.
///
/// Unwind safety: after [`StoreError::Damaged`] a writer accepts no further steps and the store
/// rejects further writes. Steps do not modify the state of readers.
pub(crate) fn catch_panic<T>(step: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|panic| Err(StoreError::Damaged { reason: panic_message(&*panic) }))
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("redb panicked without a message").to_owned()
}
