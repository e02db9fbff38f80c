//! The cached state, replaced as a whole so that readers never wait.

use super::{OnChange, state::CachedState};
use crate::sync::{Arc, RwLock};

/// The cache.
#[derive(Debug)]
pub(super) struct StateCache {
    state: RwLock<Arc<CachedState>>,
    on_change: Arc<OnChange>,
}

impl StateCache {
    /// Starts empty.
    pub(super) fn new(on_change: Arc<OnChange>) -> StateCache {
        StateCache { state: RwLock::default(), on_change }
    }

    pub(super) fn get(&self) -> Arc<CachedState> {
        self.state.read().clone()
    }

    /// Applies an update to the current state, one at a time; calls `on_change` if callers can see a
    /// difference.
    pub(super) fn update(&self, update: impl FnOnce(&mut CachedState)) {
        let (old, new) = {
            let mut current = self.state.write();
            let mut state = CachedState::clone(&current);
            update(&mut state);
            let new = Arc::new(state);
            (std::mem::replace(&mut *current, new.clone()), new)
        };
        if !new.is_equivalent(&old) {
            self.on_change.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_all_concurrent_updates() {
        const CHANGES: usize = 2000;
        let cache = StateCache::new(Arc::default());
        std::thread::scope(|scope| {
            for who in ["one", "two"] {
                let cache = &cache;
                scope.spawn(move || {
                    for number in 0..CHANGES {
                        cache.update(|state| {
                            state.warnings.insert(format!("{who} {number}"), String::new());
                        });
                    }
                });
            }
        });
        assert_eq!(cache.get().warnings.len(), 2 * CHANGES);
    }
}
