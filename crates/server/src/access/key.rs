//! API keys: what they open, and never what they are.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Fewest bytes of a key: 128 bits, if it was drawn at random.
const KEY_BYTES_MIN: usize = 16;

/// Most bytes of a key: it has to fit a header.
const KEY_BYTES_MAX: usize = 1024;

/// A key as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// What may be a key, in words.
    pub const ALLOWED: &str = "16 to 1024 visible ASCII characters";

    /// What can be told of one that is refused.
    pub fn describe(key: &str) -> String {
        format!("one of {} characters", key.chars().count())
    }

    /// Takes a key of 16 to 1024 visible ASCII characters; `None` for anything else.
    pub fn new(key: impl Into<String>) -> Option<ApiKey> {
        let key = key.into();
        let fits = (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len());
        (fits && key.bytes().all(|byte| byte.is_ascii_graphic())).then_some(ApiKey(key))
    }

    /// The key itself, to be sent or digested.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What a server knows it by: its SHA-256.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(hidden)")
    }
}

/// What a key opens; each role opens what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Searches and documents.
    Read,
    /// Writing documents, too.
    Write,
    /// Everything: collections, backups.
    Admin,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Role; 3] = [Role::Read, Role::Write, Role::Admin];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Admin => "admin",
        }
    }
}

/// A key a server lets in.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// What it opens.
    pub role: Role,
    /// Collections it is for, by the names or aliases it may use; all, if there are none.
    pub collections: Vec<String>,
}

impl KnownKey {
    /// A key for every collection.
    pub fn new(key: &ApiKey, role: Role) -> KnownKey {
        KnownKey { digest: key.digest(), role, collections: Vec::new() }
    }
}

impl fmt::Debug for KnownKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KnownKey { digest: _, role, collections } = self;
        formatter
            .debug_struct("KnownKey")
            .field("role", role)
            .field("collections", collections)
            .finish_non_exhaustive()
    }
}
