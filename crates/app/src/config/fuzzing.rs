//! The body of the fuzz target on settings.

use std::{ffi::OsString, path::Path};

use super::{builder::SettingsBuilder, error::ConfigError, file, load::Environment, settings::Settings};

/// Shorter strings may occur in a message by chance.
const SECRET_BYTES_MIN: usize = 16;

/// Reads a configuration file or, if the first byte is a `$`, lines of `NAME=value`. The result is settings within their
/// limits, or an error that shows no secret.
pub fn config_toml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match settings(text) {
        Ok(settings) => check(&settings),
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty());
            for secret in secrets(text).iter().filter(|secret| message.contains(*secret)) {
                // A secret may equal words of the message by chance; these remain if the secret is replaced.
                let other = settings(&text.replace(secret, &"?".repeat(secret.len())));
                let other = other.map_or_else(|error| error.to_string(), |_| String::new());
                assert!(other.contains(secret), "{message}");
            }
        }
    }
}

fn settings(text: &str) -> Result<Settings, ConfigError> {
    let mut warnings = Vec::new();
    let values = match text.strip_prefix('$') {
        Some(lines) => {
            let pairs = lines.lines().filter_map(|line| line.split_once('='));
            let pairs = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value)));
            Environment::read(pairs, &mut warnings)?.values
        }
        None => file::parse(Path::new("/home/ada/nearfield.toml"), text)?,
    };
    let mut settings = SettingsBuilder::new("/home/ada".into());
    values.apply(&mut settings);
    settings.build(warnings)
}

fn check(settings: &Settings) {
    let (service, server) = (&settings.server.service, &settings.server);
    assert!((1..=1024).contains(&service.workers));
    assert!((1..=1_000_000).contains(&service.queue_max));
    assert!((1..=600_000).contains(&service.timeout.as_millis()));
    assert!((1 << 20..=1 << 40).contains(&service.cache_bytes));
    assert!(service.query_cache_bytes <= 65_536 << 20);
    assert!((1..=65_536).contains(&server.connections_max));
    assert!(server.grace.as_secs() <= 3600);
    assert!(server.rate_limit <= 1_000_000);
    for warning in &settings.warnings {
        assert!(!warning.is_empty());
    }
}

/// Values of settings that may be secrets, if they occur only once in the file.
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
