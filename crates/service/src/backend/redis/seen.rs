//! The last seen state, replaced as a whole so that whoever reads it waits for nobody.

use super::{OnChange, state::State};
use crate::sync::{Arc, RwLock};

/// What all calls look at.
#[derive(Debug)]
pub(super) struct Seen {
    state: RwLock<Arc<State>>,
    on_change: Arc<OnChange>,
}

impl Seen {
    /// Nothing is known yet.
    pub(super) fn new(on_change: Arc<OnChange>) -> Seen {
        Seen { state: RwLock::default(), on_change }
    }

    pub(super) fn get(&self) -> Arc<State> {
        self.state.read().clone()
    }

    /// Changes the state as it stands now, whoever else changes it; tells of it if calls would see a
    /// difference.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let (old, new) = {
            let mut standing = self.state.write();
            let mut state = State::clone(&standing);
            change(&mut state);
            let new = Arc::new(state);
            (std::mem::replace(&mut *standing, new.clone()), new)
        };
        if !new.is_as(&old) {
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
        let seen = Seen::new(Arc::default());
        std::thread::scope(|scope| {
            for who in ["one", "two"] {
                let seen = &seen;
                scope.spawn(move || {
                    for number in 0..CHANGES {
                        seen.change(|state| {
                            state.troubles.insert(format!("{who} {number}"), String::new());
                        });
                    }
                });
            }
        });
        assert_eq!(seen.get().troubles.len(), 2 * CHANGES);
    }
}
