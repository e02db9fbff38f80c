//! Conversion of the engine's errors to the service's [`Error`].

use engine::{CollectionError, OpenError, QueryError, StoreError, VectorError, WriteError};

use crate::{Error, ErrorKind};

/// Error code: a collection with this name exists with another schema.
pub(crate) const COLLECTION_EXISTS: &str = "collection-exists";

/// Error code: the disk is full.
const FULL: &str = "insufficient-storage";

pub(crate) fn vector(field: &str, error: &VectorError) -> Error {
    Error::invalid(vector_code(error), format!("field {field:?}: {error}")).at(field)
}

fn vector_code(error: &VectorError) -> &'static str {
    match error {
        VectorError::Dimensions { .. } | VectorError::BlobSize { .. } => "vector-dimensions",
        _ => "vector-value",
    }
}

pub(crate) fn open(error: &OpenError) -> Error {
    let code = match error {
        OpenError::Locked { .. } => "data-locked",
        _ => "store",
    };
    Error::unavailable(code, error.to_string())
}

pub(crate) fn thread(error: &std::io::Error) -> Error {
    Error::unavailable("threads", format!("cannot start a thread: {error}"))
}

pub(crate) fn collection(error: CollectionError) -> Error {
    use CollectionError as E;
    let (kind, code) = match &error {
        E::NotFound { .. } => (ErrorKind::NotFound, "collection-not-found"),
        E::Exists { .. } => (ErrorKind::Conflict, COLLECTION_EXISTS),
        E::IsAlias { .. } | E::NameTaken { .. } => (ErrorKind::Conflict, "name-taken"),
        E::Rebuilding { .. } | E::NotRebuilding { .. } | E::VectorsMissing { .. } => {
            (ErrorKind::Conflict, "collection-rebuilding")
        }
        E::Name { .. } => (ErrorKind::Invalid, "name"),
        E::Schema(_) => (ErrorKind::Invalid, "schema"),
        E::ReadOnly { .. } | E::Store(StoreError::Displaced { .. }) => (ErrorKind::Unavailable, "read-only"),
        E::Closed => return Error::closing(),
        E::Store(error) if error.is_full() => (ErrorKind::Full, FULL),
        _ => (ErrorKind::Internal, "store"),
    };
    Error::new(kind, code, error.to_string())
}

pub(crate) fn query(error: QueryError) -> Error {
    use QueryError as E;
    let message = error.to_string();
    match error {
        E::CollectionNotFound { .. } => Error::new(ErrorKind::NotFound, "collection-not-found", message),
        E::FieldNotFound { field, .. } | E::NotAVectorField { field, .. } => {
            Error::invalid("field-not-found", message).at(field)
        }
        E::FieldMissing { .. } => Error::invalid("field-ambiguous", message).at("field"),
        E::Vector { source } => Error::invalid(vector_code(&source), message),
        E::Filter(_) => Error::invalid("filter", message).at("filter"),
        E::Limit { what, .. } => Error::invalid("limit", message).at(what),
        E::ResponseSize { .. } => Error::invalid("response-size", message).at("k"),
        E::MinScore { .. } => Error::invalid("min-score", message).at("min_score"),
        _ => Error::new(ErrorKind::Internal, "store", message),
    }
}

pub(crate) fn write(error: &WriteError) -> Error {
    use WriteError as E;
    let message = error.to_string();
    match error {
        E::Conflict { .. } => Error::new(ErrorKind::Conflict, "conflict", message),
        E::VectorsMissing { .. } => Error::new(ErrorKind::Conflict, "collections-changing", message),
        E::Invalid { field, .. } => Error::invalid("field-value", message).at(field),
        E::Vector { field, source, .. } => Error::invalid(vector_code(source), message).at(field),
        E::Document { .. } => Error::invalid("document", message),
        E::Full { .. } => Error::new(ErrorKind::Full, FULL, message),
        E::Memory { .. } => Error::new(ErrorKind::Full, "memory-full", message),
        E::ReadOnly { .. } => Error::unavailable("read-only", message),
        E::Closed => Error::closing(),
        _ => Error::new(ErrorKind::Internal, "store", message),
    }
}
