//! Keys for certain collections, as they stand in a file.

use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::{
    ApiKey, ConfigError, KnownKey, Role,
    given::{Given, Raw},
};

/// A table of the array `keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    key: Option<String>,
    /// Of the key, in hexadecimal, for a file that many may read.
    sha256: Option<String>,
    role: String,
    #[serde(default)]
    collections: Vec<String>,
}

/// The keys in the tables of a file; no other source has any.
pub(super) fn known_keys(given: &Given<'_>) -> Result<Vec<KnownKey>, ConfigError> {
    let allowed = "tables of key (or sha256), role and collections in the configuration file";
    let Raw::Toml { value, .. } = given.raw else {
        return Err(given.refuse(allowed, "a text"));
    };
    let tables = Vec::<KeyTable>::deserialize(ValueDeserializer::from(value.clone()))
        .map_err(|error| given.refuse(allowed, without_value(error.message())))?;
    tables.into_iter().map(|table| table.known(&given.from)).collect()
}

impl KeyTable {
    fn known(self, from: &str) -> Result<KnownKey, ConfigError> {
        let refuse = |key, allowed: String, found: String| {
            Err(ConfigError::Value { from: from.to_owned(), key, allowed, found })
        };
        let digest = match (&self.key, &self.sha256) {
            (Some(key), None) => match ApiKey::new(key.as_str()) {
                Some(key) => key.digest(),
                None => return refuse("keys.key", ApiKey::ALLOWED.to_owned(), ApiKey::describe(key)),
            },
            (None, Some(text)) => match digest(text) {
                Some(digest) => digest,
                None => {
                    // It may be the key itself, put in the wrong place.
                    let found = format!("{} characters", text.chars().count());
                    return refuse("keys.sha256", "64 hexadecimal digits".to_owned(), found);
                }
            },
            _ => {
                let allowed = "a key or its sha256, one of them".to_owned();
                return refuse("keys", allowed, "both or neither".to_owned());
            }
        };
        let Some(role) = Role::ALL.into_iter().find(|role| role.name() == self.role) else {
            return refuse("keys.role", Role::ALL.map(Role::name).join(", "), self.role);
        };
        if role == Role::Admin && !self.collections.is_empty() {
            let allowed = "none for an admin, who sees all".to_owned();
            return refuse("keys.collections", allowed, self.collections.join(", "));
        }
        if let Some(name) = self.collections.iter().find(|name| service::check_name(name).is_err()) {
            return refuse("keys.collections", "names of collections".to_owned(), name.clone());
        }
        Ok(KnownKey { digest, role, collections: self.collections })
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

/// What is wrong with a value, without the value: it may be a key.
fn without_value(message: &str) -> String {
    let shown = message.find(['"', '`']).filter(|_| message.starts_with("invalid "));
    match (shown, message.rfind(", expected ")) {
        (Some(value), Some(expected)) if value < expected => {
            format!("{}{}", message[..value].trim_end(), &message[expected..])
        }
        (Some(value), _) => message[..value].trim_end().to_owned(),
        (None, _) => message.to_owned(),
    }
}
