//! The last seen state, replaced as a whole so that whoever reads it waits for nobody.

use super::{OnChange, state::State};
use crate::sync::{Arc, RwLock};

/// What all calls look at.
#[derive(Debug)]
pub(super) struct StateCache {
    state: RwLock<Arc<State>>,
    on_change: Arc<OnChange>,
}

impl StateCache {
    /// Nothing is known yet.
    pub(super) fn new(on_change: Arc<OnChange>) -> StateCache {
        StateCache { state: RwLock::default(), on_change }
    }

    pub(super) fn get(&self) -> Arc<State> {
        self.state.read().clone()
    }

    /// Changes the state as it stands now, whoever else changes it; tells of it if calls would see a
    /// difference.
    pub(super) fn update(&self, update: impl FnOnce(&mut State)) {
        let (old, new) = {
            let mut current = self.state.write();
            let mut state = State::clone(&current);
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
    fn changes_at_the_same_time_are_all_kept() {
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
