//! Why settings are rejected.

use std::{net::SocketAddr, path::PathBuf};

/// Why settings are rejected. The message names the key, where it was set, and what is allowed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that is out of range or malformed.
    #[error("{location}: {key} must be {allowed}, found {found:?}")]
    Value {
        /// Where it was set: a flag, a variable, or a line of the file.
        location: String,
        /// The key.
        key: &'static str,
        /// What is allowed.
        allowed: String,
        /// What was found; never a secret.
        found: String,
    },
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not valid TOML, or has an unknown key.
    #[error("configuration file {path}, line {line}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong, without the value: it may be an API key.
        message: String,
    },
    /// Anyone on the network could use the server.
    #[error(
        "listen is {listen}, which other machines can reach, but no API key is set: set one with --api-key or \
         NEARFIELD_API_KEY, or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address.
        listen: SocketAddr,
    },
    /// An API key is listed more than once.
    #[error("the same API key is {first} and {second}: list every key once, with one role")]
    RepeatedKey {
        /// Its first place: the setting and its number there.
        first: String,
        /// Its second place.
        second: String,
    },
    /// One of two settings that require each other is not set.
    #[error("tls_cert and tls_key must be set together: {key} is not set")]
    Missing {
        /// The setting that is not set.
        key: &'static str,
    },
    /// The platform's data directory cannot be determined.
    #[error("the user has no home directory: set NEARFIELD_HOME or --home")]
    NoHome,
}
