//! Errors of commands that decide the exit code.

use std::path::PathBuf;

/// The command line asks for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// An answer that is a failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
}

/// There is no answer to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// No server there, or not one that answers.
    #[error("no answer from {url}: {source}{hint}")]
    NoResponse {
        url: String,
        #[source]
        source: Box<ureq::Error>,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// The data directory is another process's, and no server was found that could be asked.
    #[error("the data directory {} is in use by {holder}: wait for it to end, or stop it", data_dir.display())]
    Locked { data_dir: PathBuf, holder: String },
}
