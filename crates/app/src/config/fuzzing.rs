//! Body of the fuzz target on settings.

use std::{ffi::OsString, path::Path};

use super::{ConfigError, Layer, Settings, file};

/// Shorter ones may stand in a message by chance.
const SECRET_BYTES_MIN: usize = 16;

/// A configuration file, or where the first byte is a `$` lines of `NAME=value`: settings within their
/// limits, or an error that shows no secret.
pub fn config_toml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match settings(text) {
        Ok(settings) => check(&settings),
        Err(refused) => {
            let message = refused.to_string();
            assert!(!message.is_empty());
            for secret in secrets(text).iter().filter(|secret| message.contains(*secret)) {
                // Words of the message itself may be a secret by chance: they stay when it is another.
                let other = settings(&text.replace(secret, &"?".repeat(secret.len())));
                let other = other.map_or_else(|refused| refused.to_string(), |_| String::new());
                assert!(other.contains(secret), "{message}");
            }
        }
    }
}

fn settings(text: &str) -> Result<Settings, ConfigError> {
    let mut warnings = Vec::new();
    let layer = match text.strip_prefix('$') {
        Some(lines) => {
            let pairs = lines.lines().filter_map(|line| line.split_once('='));
            let pairs = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value)));
            Layer::from_environment(pairs, &mut warnings)?
        }
        None => file::parse(Path::new("/home/ada/nearfield.toml"), text)?,
    };
    Settings::settle("/home/ada".into(), layer, warnings)
}

fn check(settings: &Settings) {
    assert!((1..=1024).contains(&settings.workers));
    assert!((1..=1_000_000).contains(&settings.queue_max));
    assert!((1..=600_000).contains(&settings.timeout.as_millis()));
    assert!((1 << 20..=1 << 40).contains(&settings.cache_bytes));
    assert!(settings.query_cache_bytes <= 65_536 << 20);
    assert!((1..=65_536).contains(&settings.connections_max));
    assert!(settings.grace.as_secs() <= 3600);
    assert!(settings.rate_limit <= 1_000_000);
    for warning in &settings.warnings {
        assert!(!warning.is_empty());
    }
}

/// Values of settings that may be secrets, where they stand nowhere else in the file.
fn secrets(text: &str) -> Vec<String> {
    let Ok(file) = text.parse::<toml::Table>() else { return Vec::new() };
    let mut secrets = Vec::new();
    for name in ["api_key", "write_key", "read_key", "store"] {
        match file.get(name) {
            Some(toml::Value::String(secret)) => secrets.push(secret.clone()),
            Some(toml::Value::Array(many)) => {
                secrets.extend(many.iter().filter_map(|secret| secret.as_str()).map(str::to_owned));
            }
            _ => {}
        }
    }
    secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN && text.matches(&**secret).count() == 1);
    secrets
}
