//! KeyLocks at writing one document, in the order they were asked for.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// KeyLocks that are kept apart. Documents that share one only wait for each other needlessly.
const TURNS: usize = 1024;

/// Who writes a document waits here for who writes it already, instead of embedding a text
/// that is overtaken. Correctness does not rest on it: the commit is guarded.
pub(crate) struct KeyLocks {
    key_locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl KeyLocks {
    pub(crate) fn new() -> KeyLocks {
        KeyLocks { key_locks: (0..TURNS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Waits for the key_locks of these documents and holds them.
    pub(crate) async fn take<'i>(&self, ids: impl Iterator<Item = &'i str>) -> Vec<MutexGuard<'_, ()>> {
        // Everybody takes them in the same order, so that nobody waits in a circle.
        let mut numbers: Vec<usize> =
            ids.map(|id| (self.hasher.hash_one(id) % TURNS as u64) as usize).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut taken = Vec::with_capacity(numbers.len());
        for number in numbers {
            taken.push(self.key_locks[number].lock().await);
        }
        taken
    }
}
