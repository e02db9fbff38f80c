//! API keys and their roles.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Least bytes of a key: 128 bits if it is random.
const KEY_BYTES_MIN: usize = 16;

/// Most bytes of a key: it must fit into a header.
const KEY_BYTES_MAX: usize = 1024;

/// A key as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// What a key may consist of, for messages.
    pub const ALLOWED: &str = "16 to 1024 visible ASCII characters";

    /// A description of an invalid key that does not reveal it.
    pub fn describe(key: &str) -> String {
        format!("one of {} characters", key.chars().count())
    }

    /// Takes 16 to 1024 visible ASCII characters; `None` for anything else.
    pub fn new(key: impl Into<String>) -> Option<ApiKey> {
        let key = key.into();
        let fits = (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len());
        (fits && key.bytes().all(|byte| byte.is_ascii_graphic())).then_some(ApiKey(key))
    }

    /// The key itself, to send or to hash it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the key.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(hidden)")
    }
}

/// What a key permits. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Search and read documents.
    Read,
    /// Write documents.
    Write,
    /// Everything, including collections and backups.
    Admin,
}

impl Role {
    /// All roles in ascending order.
    pub const ALL: [Role; 3] = [Role::Read, Role::Write, Role::Admin];

    /// Its name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Admin => "admin",
        }
    }
}

/// The collections that a key covers.
///
/// All of them is a variant of its own, so that an empty list covers nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// All, including those created later.
    All,
    /// Those with these names or aliases.
    Named(Vec<String>),
}

/// A key that the server accepts. Only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct AcceptedKey {
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it permits.
    pub role: Role,
    /// The collections it covers.
    pub collections: Coverage,
}

impl AcceptedKey {
    /// A key for all collections.
    pub fn new(key: &ApiKey, role: Role) -> AcceptedKey {
        AcceptedKey { digest: key.digest(), role, collections: Coverage::All }
    }
}

impl fmt::Debug for AcceptedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AcceptedKey { digest: _, role, collections } = self;
        formatter
            .debug_struct("AcceptedKey")
            .field("role", role)
            .field("collections", collections)
            .finish_non_exhaustive()
    }
}
