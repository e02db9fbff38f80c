//! Why a verb failed, in few kinds, so that each door maps them once.

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The call itself is wrong: 422 (400 where it could not even be read).
    Invalid,
    /// No such collection, alias or document: 404.
    NotFound,
    /// It stands otherwise than expected (a sequence, another schema): 409 or 412.
    Conflict,
    /// Too much at once: 503 with Retry-After.
    Overloaded,
    /// Something this depends on does not answer, or the deadline passed: 503 or 504.
    Unavailable,
    /// No room: 507.
    Full,
    /// A fault of ours: 500.
    Internal,
}

/// Why a verb failed: a kind, and a message that names what was wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind.
    pub kind: ErrorKind,
    /// A stable word for programs, such as `vector-dimensions` or `collection-not-found`.
    pub code: &'static str,
    /// The sentence for people.
    pub message: String,
    /// The field, parameter or line the trouble is in, if it has one.
    pub at: Option<String>,
}

impl Error {
    /// An error without a place.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Error {
        Error { kind, code, message: message.into(), at: None }
    }

    /// The same error, with the field, parameter or line it is in.
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
        Error::unavailable("closing", "the service is closing and takes no more calls")
    }
}
