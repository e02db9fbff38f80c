//! The configuration file.

use std::path::Path;

use toml::de::DeTable;

use super::{
    ConfigError,
    given::{Given, Raw},
    layer::Layer,
    list::{self, SETTINGS},
};

/// What the file sets.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// [`read`], where `text` is what stands in the file.
pub(super) fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    let wrong = |at, message| ConfigError::File { path: path.to_owned(), line: line(at), message };
    let table = DeTable::parse(text)
        .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut layer = Layer::default();
    for (key, value) in table.get_ref() {
        let Some(setting) = list::find(key.get_ref()) else {
            let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
            let message = format!("there is no setting {:?}, but {}", key.get_ref(), known.join(", "));
            return Err(wrong(key.span().start, message));
        };
        let from = format!("{}, line {}", path.display(), line(key.span().start));
        (setting.set)(&mut layer, &Given { key: setting.key, from, raw: Raw::Toml { value, base } })?;
    }
    Ok(layer)
}
