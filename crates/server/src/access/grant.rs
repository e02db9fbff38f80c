//! What an authenticated caller may do, and the reasons for which a request is denied.

use std::time::Duration;

use super::{Action, Coverage, Role, Scope};

/// The rights of a caller.
#[derive(Clone, Debug)]
pub struct Grant {
    pub(super) role: Role,
    /// The collections it covers.
    pub(super) collections: Coverage,
    /// SHA-256 of the key; `None` if the server has no keys.
    pub(super) key: Option<[u8; 32]>,
}

/// Why a request is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// An API key is required and none was sent.
    KeyMissing,
    /// The key is not one of the server's.
    KeyUnknown,
    /// Too many wrong keys came from the caller's network.
    LockedOut {
        /// When keys of this network are checked again.
        retry_after: Duration,
    },
    /// The caller exceeded its rate limit.
    RateLimited {
        /// When the next request is accepted.
        retry_after: Duration,
    },
    /// The key's role is too low.
    Role {
        /// The least role the action needs.
        required: Role,
        /// The key's role.
        actual: Role,
    },
    /// The action needs a key for all collections.
    AllCollections,
    /// The key covers certain collections, and the request names none.
    CollectionUnnamed,
    /// The key does not cover this collection.
    Collection(String),
    /// The collection shares documents with one that the key does not cover.
    SharedDocuments(String),
}

impl Grant {
    /// The grant of every caller of a server without keys.
    pub fn unrestricted() -> Grant {
        Grant { role: Role::Admin, collections: Coverage::All, key: None }
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it covers all collections, including those created later.
    pub fn covers_all(&self) -> bool {
        self.collections == Coverage::All
    }

    /// Whether it covers the collection or alias `name`.
    pub fn covers(&self, name: &str) -> bool {
        match &self.collections {
            Coverage::All => true,
            Coverage::Named(names) => names.iter().any(|covered| covered == name),
        }
    }

    /// Checks that the caller may perform `action`, on `collection` if the request names one.
    pub fn authorize(&self, action: Action, collection: Option<&str>) -> Result<(), Denial> {
        let Some((required, scope)) = action.requirement() else { return Ok(()) };
        if self.role < required {
            return Err(Denial::Role { required, actual: self.role });
        }
        if self.covers_all() {
            return Ok(());
        }
        match (scope, collection) {
            (Scope::Any, _) => Ok(()),
            (Scope::All, _) => Err(Denial::AllCollections),
            (Scope::Named, None) => Err(Denial::CollectionUnnamed),
            (Scope::Named, Some(name)) if self.covers(name) => Ok(()),
            (Scope::Named, Some(name)) => Err(Denial::Collection(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, collections: Coverage) -> Grant {
        Grant { role, collections, key: None }
    }

    fn named(names: &[&str]) -> Coverage {
        Coverage::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_key_for_an_empty_list_of_collections_covers_none() {
        let grant = grant(Role::Read, named(&[]));
        assert!(!grant.covers_all() && !grant.covers("kb"));
        let denied = Err(Denial::Collection("kb".to_owned()));
        assert_eq!(grant.authorize(Action::Search, Some("kb")), denied);
    }

    #[test]
    fn an_unlisted_action_needs_an_admin_key_for_all_collections() {
        assert_eq!(grant(Role::Admin, Coverage::All).authorize(Action::Unlisted, None), Ok(()));
        let denied = Denial::Role { required: Role::Admin, actual: Role::Write };
        assert_eq!(grant(Role::Write, Coverage::All).authorize(Action::Unlisted, None), Err(denied));
        let limited = grant(Role::Admin, named(&["kb"]));
        assert_eq!(limited.authorize(Action::Unlisted, Some("kb")), Err(Denial::AllCollections));
    }

    #[test]
    fn a_key_for_certain_collections_is_limited_to_them() {
        let limited = grant(Role::Write, named(&["kb"]));
        assert_eq!(limited.authorize(Action::Search, Some("kb")), Ok(()));
        assert_eq!(
            limited.authorize(Action::Search, Some("other")),
            Err(Denial::Collection("other".to_owned()))
        );
        assert_eq!(limited.authorize(Action::Search, None), Err(Denial::CollectionUnnamed));
        assert_eq!(limited.authorize(Action::ListCollections, None), Ok(()));
        assert_eq!(limited.authorize(Action::ReadStats, None), Err(Denial::AllCollections));
        assert_eq!(limited.authorize(Action::CheckLiveness, None), Ok(()));
    }
}
