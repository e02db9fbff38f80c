//! Errors of commands that decide the exit code.

use std::path::PathBuf;

/// The command line is invalid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// The server, or the service in this process, responded with an error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
    /// Documents that were deleted before a deletion by filter ended early.
    pub(crate) deleted: u64,
}

/// There is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The server cannot be reached, or its response is unusable.
    #[error("no response from {url}: {source}{hint}")]
    NoResponse {
        url: String,
        #[source]
        source: Box<ureq::Error>,
        /// What to do, if known; otherwise empty.
        hint: &'static str,
    },
    /// Another process holds the data directory, and no server that could be used was found.
    #[error("the data directory {} is in use by {holder}: wait for it to finish, or stop it", data_dir.display())]
    Locked { data_dir: PathBuf, holder: String },
}
