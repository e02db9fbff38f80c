//! The locks and atomics of [`crate::arena`]: the standard library's, or a model checker's.

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{Mutex, atomic};

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{Mutex, atomic};
