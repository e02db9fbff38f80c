//! The pools of worker threads.

/// A pool of worker threads with its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Searches, reads and counts.
    Search,
    /// Preparing and embedding documents.
    Ingest,
    /// Creating, changing and describing collections, and loading models for them.
    Admin,
}

impl Pool {
    pub(crate) const ALL: [Pool; 3] = [Pool::Search, Pool::Ingest, Pool::Admin];

    /// Its name in metrics, logs and the names of its threads.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pool::Search => "search",
            Pool::Ingest => "ingest",
            Pool::Admin => "admin",
        }
    }
}
