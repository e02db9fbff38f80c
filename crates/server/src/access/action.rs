//! The actions that callers perform, and what each requires.

use super::Role;

/// What a caller does, independent of the protocol. Every entry of an interface's routing table states its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ask whether the process is alive.
    CheckLiveness,
    /// Ask whether searches and writes are accepted.
    CheckReadiness,
    /// Load the static web page.
    ReadPage,
    /// Read the description of the interface.
    ReadApiDescription,
    /// Search a collection.
    Search,
    /// Get, list or count documents of a collection.
    ReadDocuments,
    /// Insert, change or delete documents of a collection.
    WriteDocuments,
    /// List the collections.
    ListCollections,
    /// Get the schema and counts of a collection.
    ReadCollection,
    /// Create, rebuild and drop collections, set and remove aliases.
    ManageCollections,
    /// Get the counts of the whole store.
    ReadStats,
    /// Get the metrics of the process.
    ReadMetrics,
    /// Get a diagnosis of the last searches.
    Diagnose,
    /// Copy the whole store.
    Backup,
    /// An operation that the routing table does not list.
    Unlisted,
}

/// Which collections a key must cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The collection that the request names.
    Named,
    /// Any: a key for certain collections gets a response limited to them.
    Any,
    /// All.
    All,
}

impl Action {
    /// The least role and the scope that a key needs; `None` if no key is needed.
    pub fn requirement(self) -> Option<(Role, Scope)> {
        match self {
            Action::CheckLiveness | Action::CheckReadiness | Action::ReadPage => None,
            Action::ReadApiDescription | Action::ListCollections => Some((Role::Read, Scope::Any)),
            Action::Search | Action::ReadDocuments | Action::ReadCollection => {
                Some((Role::Read, Scope::Named))
            }
            Action::WriteDocuments => Some((Role::Write, Scope::Named)),
            Action::ReadStats | Action::ReadMetrics => Some((Role::Read, Scope::All)),
            Action::ManageCollections | Action::Backup | Action::Diagnose => Some((Role::Admin, Scope::All)),
            // Deny by default.
            Action::Unlisted => Some((Role::Admin, Scope::All)),
        }
    }

    /// Whether it reads or changes documents of the collection that the request names.
    pub fn reaches_documents(self) -> bool {
        matches!(self, Action::Search | Action::ReadDocuments | Action::WriteDocuments)
    }

    /// Whether it is rejected early while more searches wait than can be answered in time.
    pub fn is_sheddable(self) -> bool {
        self == Action::Search
    }

    /// Whether it is answered even when all connections are in use or the server is stopping.
    pub fn is_health_check(self) -> bool {
        matches!(self, Action::CheckLiveness | Action::CheckReadiness)
    }
}
