//! Progress reports of a pull.

use super::error::FailedAttempt;

/// Receives the progress of a pull.
pub trait PullProgress {
    /// A source is about to be tried.
    fn source_started(&self, source: &str);
    /// A source failed; the next one follows, if there is one.
    fn source_failed(&self, attempt: &FailedAttempt);
    /// A file is about to be copied; `bytes` is its length, if known.
    fn file_started(&self, path: &str, bytes: Option<u64>);
    /// The number of bytes of the current file copied so far.
    fn bytes_received(&self, bytes: u64);
}
