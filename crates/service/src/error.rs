//! The error type of the service. Its few kinds map to HTTP statuses and exit codes.

/// Kinds of error, with the HTTP status of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is invalid: 422 (400 if it cannot be parsed).
    Invalid,
    /// No such collection, alias or document: 404.
    NotFound,
    /// The current state does not match the expected one (sequence number, schema): 409 or 412.
    Conflict,
    /// The service is overloaded: 503 with Retry-After.
    Overloaded,
    /// A dependency is unavailable, or the deadline passed: 503 or 504.
    Unavailable,
    /// The disk or the memory limit is full: 507.
    Full,
    /// A bug in the program, or a failure of the store: 500.
    Internal,
}

/// An error: its kind, and a message that says what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind.
    pub kind: ErrorKind,
    /// A stable, machine-readable code, such as `vector-dimensions` or `collection-not-found`.
    pub code: &'static str,
    /// The human-readable message.
    pub message: String,
    /// The field, parameter or line that the error refers to, if any.
    pub at: Option<String>,
}

impl Error {
    /// An error that refers to no field, parameter or line.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Error {
        Error { kind, code, message: message.into(), at: None }
    }

    /// Sets the field, parameter or line that the error refers to.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Error {
        self.at = Some(place.into());
        self
    }

    pub(super) fn invalid(code: &'static str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, code, message)
    }

    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unavailable, code, message)
    }

    pub(super) fn closing() -> Error {
        Error::unavailable("closing", "the service is closing and accepts no more calls")
    }
}
