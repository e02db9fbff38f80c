//! Maps errors of Redis and of its client to the service's error kinds.

use redis::{ErrorKind, RedisError, ServerError};

use super::{Error, address::Address};

/// The search module has no index of that name.
pub(super) const INDEX_MISSING: &str = "index-missing";

/// The server is unavailable.
pub(super) const UNAVAILABLE: &str = "redis-unavailable";

/// The client's text for a failed login.
const AUTHENTICATION: &str = "authentication failed";

/// The connection failed or broke.
pub(super) fn connection(address: &Address, error: &RedisError) -> Error {
    // An error code means that the server replied during connection setup.
    let code = match error.kind() {
        ErrorKind::AuthenticationFailed => Some(AUTHENTICATION),
        _ => error.code(),
    };
    match code {
        Some(code) => {
            let rejected = from_code(code, error.detail().unwrap_or_default());
            Error { message: format!("{address}: {}", rejected.message), ..rejected }
        }
        None => Error::unavailable(UNAVAILABLE, format!("Redis at {address} does not reply: {error}")),
    }
}

/// A command timed out.
pub(super) fn timeout(address: &Address, timeout: std::time::Duration) -> Error {
    Error::unavailable(
        UNAVAILABLE,
        format!(
            "Redis at {address} did not reply within {} ms; a write that was sent may still be applied",
            timeout.as_millis()
        ),
    )
}

/// Not sent: the server has not replied for a while.
pub(super) fn unresponsive(address: &Address, time: std::time::Duration) -> Error {
    let ms = time.as_millis();
    Error::unavailable(
        UNAVAILABLE,
        format!("Redis at {address} has not replied for {ms} ms; no commands are sent until it does"),
    )
}

/// Not sent: there is no open connection.
pub(super) fn connecting(address: &Address) -> Error {
    Error::unavailable(UNAVAILABLE, format!("still connecting to Redis at {address}; try again soon"))
}

/// The connection pool is at capacity.
pub(super) fn busy(address: &Address) -> Error {
    Error::new(
        crate::ErrorKind::Overloaded,
        "redis-busy",
        format!("too many commands are waiting for Redis at {address}; try again in a second"),
    )
}

/// No server serves the slot of a key.
pub(super) fn slot_unserved(slot: u16) -> Error {
    Error::unavailable(
        UNAVAILABLE,
        format!(
            "no server of the Redis Cluster serves slot {slot}: the cluster is failing over, or a primary is missing"
        ),
    )
}

/// No server serves some slots of the cluster.
pub(super) fn incomplete(slots: u16) -> Error {
    Error::unavailable(
        UNAVAILABLE,
        format!(
            "no server serves {slots} slots of the Redis Cluster: the cluster is failing over, or a primary is missing"
        ),
    )
}

/// A command was redirected too often.
pub(super) fn too_many_redirections() -> Error {
    Error::unavailable(
        UNAVAILABLE,
        "the Redis Cluster is migrating the slot of this key, and no server accepted the command; try again soon",
    )
}

/// A write was applied but did not reach enough replicas in time.
pub(super) fn not_replicated(reached: i64, wanted: usize) -> Error {
    Error::unavailable(
        "redis-not-replicated",
        format!(
            "the write was applied, but only {reached} of the {wanted} required replicas acknowledged it: it is lost if the primary fails now"
        ),
    )
}

/// A shard has no index of a collection yet.
pub(super) fn index_missing(collection: &str) -> Error {
    Error::unavailable(
        INDEX_MISSING,
        format!(
            "the shard has no index of collection {collection:?} yet; Nearfield creates it, try again soon"
        ),
    )
}

/// An index does not contain all documents of its shard yet.
pub(super) fn index_incomplete(collection: &str, documents: u64) -> Error {
    Error::unavailable(
        "index-incomplete",
        format!(
            "the new index of collection {collection:?} is still being built ({documents} documents so far), so hits would be missing; try again later"
        ),
    )
}

/// A reply has an unexpected shape.
pub(super) fn reply(what: &str) -> Error {
    Error::new(crate::ErrorKind::Internal, "redis-reply", format!("Redis sent an unexpected reply: {what}"))
}

/// The health check panicked.
pub(super) fn panicked() -> Error {
    Error::new(
        crate::ErrorKind::Internal,
        "internal",
        "internal error in the Redis health check; see the server's log",
    )
}

/// The server returned an error reply.
pub(super) fn server(error: &ServerError) -> Error {
    from_code(error.code(), error.details().unwrap_or_default())
}

/// Errors of modules have no code; the first word of their text is then taken for the code.
fn from_code(code: &str, details: &str) -> Error {
    let text = if details.is_empty() { code.to_owned() } else { format!("{code} {details}") };
    match code {
        "OOM" => Error::new(
            crate::ErrorKind::Full,
            "redis-full",
            format!("Redis is out of memory ({text}): raise maxmemory or delete documents"),
        ),
        "LOADING" | "MASTERDOWN" | "BUSY" | "CLUSTERDOWN" | "TRYAGAIN" => {
            Error::unavailable(UNAVAILABLE, format!("Redis is not ready yet ({text}); try again soon"))
        }
        "NOAUTH" | "WRONGPASS" | "NOPERM" | AUTHENTICATION => Error::unavailable(
            "redis-refused",
            format!(
                "Redis rejected this user ({text}): check the user and password in the store URL, and the user's ACL"
            ),
        ),
        "READONLY" => Error::unavailable(
            "redis-read-only",
            format!("Redis does not accept writes ({text}): point the store URL at the primary"),
        ),
        "MISCONF" => Error::unavailable(
            "redis-refused",
            format!("Redis does not accept writes ({text}): it cannot save its data; see its log"),
        ),
        "WRONGTYPE" => Error::new(
            crate::ErrorKind::Conflict,
            "key-taken",
            "the document's key holds a value that is not a hash: delete the key or choose another id",
        ),
        "MOVED" | "ASK" => Error::unavailable(
            INDEX_MISSING,
            format!(
                "the slot of the index moved to another server ({text}); Nearfield creates a new index, try again soon"
            ),
        ),
        _ if is_index_missing(&text) => Error::unavailable(
            INDEX_MISSING,
            format!(
                "Redis lost the index of the collection ({text}); Nearfield creates it again, try again soon"
            ),
        ),
        _ if text.starts_with("Timeout limit was reached") => {
            Error::unavailable("deadline", "the deadline passed before Redis finished the search")
        }
        _ => Error::new(crate::ErrorKind::Internal, "redis", format!("Redis rejected a command: {text}")),
    }
}

fn is_index_missing(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("no such index") || text.contains("unknown index name")
}

/// Whether the server does not have the script that it was asked to run.
pub(super) fn is_script_missing(error: &ServerError) -> bool {
    error.code() == "NOSCRIPT"
}
