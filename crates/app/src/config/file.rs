//! The configuration file.

use std::path::Path;

use toml::de::DeTable;

use super::{
    assignments::Assignments,
    error::ConfigError,
    table::{self, SETTINGS},
    value::{RawSetting, SettingValue},
};

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<Assignments, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Parses `text`, the content of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Assignments, ConfigError> {
    let line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    let error = |at, message| ConfigError::File { path: path.to_owned(), line: line(at), message };
    let document = DeTable::parse(text)
        .map_err(|cause| error(cause.span().map_or(0, |span| span.start), cause.message().to_owned()))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut assignments = Assignments::default();
    for (key, value) in document.get_ref() {
        let Some(setting) = table::find(key.get_ref()) else {
            let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
            let message =
                format!("unknown setting {:?}; known settings are {}", key.get_ref(), known.join(", "));
            return Err(error(key.span().start, message));
        };
        let location = format!("{}, line {}", path.display(), line(key.span().start));
        let raw = RawSetting::Toml { value, base };
        assignments.read(setting, &SettingValue { key: setting.key, location, raw })?;
    }
    Ok(assignments)
}
