//! Locks on documents that are being written, granted in the order of request.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// The number of locks. Documents that share a lock wait for each other unnecessarily, but correctly.
const LOCKS: usize = 1024;

/// Makes concurrent writers of one document wait for each other, rather than embed a text that a conflict
/// discards. Correctness does not depend on these locks: the commit checks the document's version.
pub(crate) struct KeyLocks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl KeyLocks {
    pub(crate) fn new() -> KeyLocks {
        KeyLocks { locks: (0..LOCKS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Acquires the locks of these documents.
    pub(crate) async fn lock<'i>(&self, ids: impl Iterator<Item = &'i str>) -> Vec<MutexGuard<'_, ()>> {
        // All callers acquire in ascending order, which rules out deadlocks.
        let mut indexes: Vec<usize> =
            ids.map(|id| (self.hasher.hash_one(id) % LOCKS as u64) as usize).collect();
        indexes.sort_unstable();
        indexes.dedup();
        let mut guards = Vec::with_capacity(indexes.len());
        for index in indexes {
            guards.push(self.locks[index].lock().await);
        }
        guards
    }
}
