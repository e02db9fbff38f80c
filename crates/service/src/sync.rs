//! Locks and atomics of the service, in one place, so that a model checker can substitute its own.

pub(super) use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

pub(super) use parking_lot::{Condvar, Mutex, RwLock};
