//! A fence around redb.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::StoreError;

/// Runs a step that reads or writes through redb. On a damaged file redb may panic where it
/// finds its own invariants broken; outside this crate that is an error like any other damage.
///
/// Unwind safety: after [`StoreError::Damaged`] a writer takes no further step and the store
/// refuses further writes; readers hold nothing that a step changes.
pub(crate) fn contain<T>(step: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|panic| Err(StoreError::Damaged { reason: message(&*panic) }))
}

pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("redb stopped without saying why").to_owned()
}
