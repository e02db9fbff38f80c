//! What a Redis refuses or fails at, in the service's kinds of error.

use redis::{ErrorKind, RedisError, ServerError};

use super::{Error, address::Address};

/// The search module knows no index of that name.
pub(super) const INDEX_MISSING: &str = "index-missing";

/// The server cannot be asked now.
pub(super) const UNAVAILABLE: &str = "redis-unavailable";

/// The client's own word for a login that was refused.
const AUTHENTICATION: &str = "authentication failed";

/// The connection failed, or broke.
pub(super) fn connection(address: &Address, error: &RedisError) -> Error {
    // A server that refuses while the connection is set up has answered.
    let code = match error.kind() {
        ErrorKind::AuthenticationFailed => Some(AUTHENTICATION),
        _ => error.code(),
    };
    match code {
        Some(code) => {
            let refused = refused(code, error.detail().unwrap_or_default());
            Error { message: format!("{address}: {}", refused.message), ..refused }
        }
        None => Error::unavailable(UNAVAILABLE, format!("Redis at {address} does not answer: {error}")),
    }
}

/// A command ran out of time.
pub(super) fn timeout(address: &Address, timeout: std::time::Duration) -> Error {
    Error::unavailable(
        UNAVAILABLE,
        format!(
            "Redis at {address} did not answer within {} ms; a write it was sent may still be made",
            timeout.as_millis()
        ),
    )
}

/// Nothing was sent: the server has been silent.
pub(super) fn silent(address: &Address, time: std::time::Duration) -> Error {
    let ms = time.as_millis();
    Error::unavailable(
        UNAVAILABLE,
        format!("Redis at {address} has not answered for {ms} ms; it is not asked until it does"),
    )
}

/// Nothing was sent: there is no connection now.
pub(super) fn connecting(address: &Address) -> Error {
    Error::unavailable(UNAVAILABLE, format!("Redis at {address} is being connected to; try again soon"))
}

/// No room on the connections.
pub(super) fn busy(address: &Address) -> Error {
    Error::new(
        crate::ErrorKind::Overloaded,
        "redis-busy",
        format!("too many commands wait for Redis at {address}; try again in a second"),
    )
}

/// Nobody serves a slot of the cluster.
pub(super) fn unserved(slot: u16) -> Error {
    Error::unavailable(
        UNAVAILABLE,
        format!(
            "no server of the Redis Cluster serves slot {slot} now; it is failing over, or lacks servers"
        ),
    )
}

/// Nobody serves many slots of the cluster.
pub(super) fn incomplete(slots: u16) -> Error {
    Error::unavailable(
        UNAVAILABLE,
        format!(
            "{slots} slots of the Redis Cluster are served by nobody: it is failing over, or lacks servers"
        ),
    )
}

/// Servers send one to the other and none answers.
pub(super) fn moving() -> Error {
    Error::unavailable(
        UNAVAILABLE,
        "the Redis Cluster is moving the slot of this key, and no server answered for it; try again soon",
    )
}

/// A write was made but did not reach enough replicas in time.
pub(super) fn not_replicated(reached: i64, wanted: usize) -> Error {
    Error::unavailable(
        "redis-not-replicated",
        format!(
            "the write was made, but {reached} of the {wanted} replicas it has to reach have it: it is lost if the primary fails now"
        ),
    )
}

/// A shard has no index of a collection yet.
pub(super) fn index_missing(collection: &str) -> Error {
    Error::unavailable(
        INDEX_MISSING,
        format!("there is no index of collection {collection:?} yet; it is looked at again"),
    )
}

/// An index does not hold yet what stands on its shard.
pub(super) fn index_unfinished(collection: &str, documents: u64) -> Error {
    Error::unavailable(
        "index-incomplete",
        format!(
            "the index of collection {collection:?} is new there and still takes in what stands ({documents} documents so far); its hits would not be all there are"
        ),
    )
}

/// A reply of another shape than the command has.
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

/// The server refused a command.
pub(super) fn server(error: &ServerError) -> Error {
    refused(error.code(), error.details().unwrap_or_default())
}

/// Errors of modules have no code: then the code is the first word of their text.
fn refused(code: &str, details: &str) -> Error {
    let text = if details.is_empty() { code.to_owned() } else { format!("{code} {details}") };
    match code {
        "OOM" => Error::new(
            crate::ErrorKind::Full,
            "redis-full",
            format!("Redis has no memory left ({text}): raise maxmemory or delete documents"),
        ),
        "LOADING" | "MASTERDOWN" | "BUSY" | "CLUSTERDOWN" | "TRYAGAIN" => {
            Error::unavailable(UNAVAILABLE, format!("Redis is not ready yet ({text}); try again soon"))
        }
        "NOAUTH" | "WRONGPASS" | "NOPERM" | AUTHENTICATION => Error::unavailable(
            "redis-refused",
            format!("Redis refuses this user ({text}): check user, password and ACL of the store's URL"),
        ),
        "READONLY" => Error::unavailable(
            "redis-read-only",
            format!("Redis takes no writes ({text}): point the store's URL at the primary"),
        ),
        "MISCONF" => Error::unavailable(
            "redis-refused",
            format!("Redis takes no writes ({text}): it cannot save its own data; see its log"),
        ),
        "WRONGTYPE" => Error::new(
            crate::ErrorKind::Conflict,
            "key-taken",
            "under the document's key stands something that is no hash: delete it or choose another id",
        ),
        "MOVED" | "ASK" => Error::unavailable(
            INDEX_MISSING,
            format!("the slot of the index has gone to another server ({text}); another index is made"),
        ),
        _ if is_index_missing(&text) => Error::unavailable(
            INDEX_MISSING,
            format!("Redis has lost the index of the collection ({text}); it is looked at again"),
        ),
        _ if text.starts_with("Timeout limit was reached") => {
            Error::unavailable("deadline", "the time for this search was over before Redis had finished it")
        }
        _ => Error::new(crate::ErrorKind::Internal, "redis", format!("Redis refused a command: {text}")),
    }
}

fn is_index_missing(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("no such index") || text.contains("unknown index name")
}

/// Whether the server does not know the script it was asked to run.
pub(super) fn is_script_missing(error: &ServerError) -> bool {
    error.code() == "NOSCRIPT"
}
