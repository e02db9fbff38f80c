//! API keys for certain collections, in the configuration file.

use serde::Deserialize;
use server::access::{AcceptedKey, ApiKey, Coverage, Role};
use toml::de::ValueDeserializer;

use super::{
    error::ConfigError,
    value::{RawSetting, SettingValue},
};

/// A table of the array `keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    key: Option<String>,
    /// The SHA-256 of the key in hexadecimal, for a file that others may read.
    sha256: Option<String>,
    role: String,
    /// All if left out.
    collections: Option<Vec<String>>,
}

/// Reads the tables.
pub(super) fn collection_keys(
    value: &SettingValue<'_>,
    allowed: &str,
) -> Result<Vec<AcceptedKey>, ConfigError> {
    let RawSetting::Toml { value: tables, .. } = value.raw else {
        return Err(value.error(allowed, "text"));
    };
    let tables = Vec::<KeyEntry>::deserialize(ValueDeserializer::from(tables.clone()))
        .map_err(|error| value.error(allowed, without_value(error.message())))?;
    tables.into_iter().map(|table| table.check(&value.location)).collect()
}

impl KeyEntry {
    fn check(self, location: &str) -> Result<AcceptedKey, ConfigError> {
        let error = |key, allowed: String, found: String| {
            Err(ConfigError::Value { location: location.to_owned(), key, allowed, found })
        };
        let digest = match (&self.key, &self.sha256) {
            (Some(key), None) => match ApiKey::new(key.as_str()) {
                Some(key) => key.digest(),
                None => return error("keys.key", ApiKey::ALLOWED.to_owned(), ApiKey::describe(key)),
            },
            (None, Some(text)) => match digest(text) {
                Some(digest) => digest,
                None => {
                    // Not shown: it may be the key itself.
                    let found = format!("{} characters", text.chars().count());
                    return error("keys.sha256", "64 hexadecimal digits".to_owned(), found);
                }
            },
            _ => {
                let allowed = "either a key or its sha256".to_owned();
                return error("keys", allowed, "both or neither".to_owned());
            }
        };
        let Some(role) = Role::ALL.into_iter().find(|role| role.name() == self.role) else {
            return error("keys.role", Role::ALL.map(Role::name).join(", "), self.role);
        };
        let Some(collections) = self.collections else {
            return Ok(AcceptedKey { digest, role, collections: Coverage::All });
        };
        if collections.is_empty() {
            let allowed =
                "one or more collection names, or left out for a key for all collections".to_owned();
            return error("keys.collections", allowed, "an empty list".to_owned());
        }
        if role == Role::Admin {
            let allowed = "omitted for an admin key, which covers all collections".to_owned();
            return error("keys.collections", allowed, collections.join(", "));
        }
        if let Some(name) = collections.iter().find(|name| service::check_name(name).is_err()) {
            return error("keys.collections", "collection names".to_owned(), name.clone());
        }
        Ok(AcceptedKey { digest, role, collections: Coverage::Named(collections) })
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

/// An error message of serde without the value it quotes, which may be an API key.
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
