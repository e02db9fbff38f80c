//! The value of a setting as its source gives it, and how it is read.

use std::{
    ffi::{OsStr, OsString},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeValue};

use super::error::ConfigError;

/// A value of the setting `key`.
pub(super) struct SettingValue<'a> {
    pub(super) key: &'static str,
    /// Where it was set, for messages.
    pub(super) location: String,
    pub(super) raw: RawSetting<'a>,
}

/// A value before it is read.
#[derive(Clone, Copy)]
pub(super) enum RawSetting<'a> {
    /// The value of an environment variable or a flag. Lists are separated by commas.
    Word(&'a OsStr),
    /// The values of a repeatable flag.
    Words(&'a [OsString]),
    /// A value of a file in the directory `base`.
    Toml { value: &'a Spanned<DeValue<'a>>, base: &'a Path },
}

impl<'a> SettingValue<'a> {
    /// The error for a value that is not `allowed`. `found` must not be a secret.
    pub(super) fn error(&self, allowed: impl Into<String>, found: impl Into<String>) -> ConfigError {
        let (location, allowed, found) = (self.location.clone(), allowed.into(), found.into());
        ConfigError::Value { location, key: self.key, allowed, found }
    }

    /// The error for a value of the wrong type. A string in a file is not shown: it may be a misplaced API key.
    fn type_error(&self, allowed: impl Into<String>) -> ConfigError {
        let shown = |word: &OsStr| match word.to_str() {
            Some(text) => text.to_owned(),
            None => "text that is not Unicode".to_owned(),
        };
        let found = match self.raw {
            RawSetting::Word(word) => shown(word),
            RawSetting::Words(words) => words.iter().map(|word| shown(word)).collect::<Vec<_>>().join(","),
            RawSetting::Toml { value, .. } => match value.get_ref() {
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(boolean) => boolean.to_string(),
                DeValue::Datetime(_) => "a date or time".to_owned(),
                DeValue::String(_) => "a string".to_owned(),
                DeValue::Array(_) => "an array".to_owned(),
                DeValue::Table(_) => "a table".to_owned(),
            },
        };
        self.error(allowed, found)
    }

    /// A text. `allowed` describes valid ones, for the error.
    pub(super) fn text(&self, allowed: &str) -> Result<&'a str, ConfigError> {
        let text = match self.raw {
            RawSetting::Word(word) => word.to_str(),
            RawSetting::Words(_) => None,
            RawSetting::Toml { value, .. } => value.get_ref().as_str(),
        };
        text.map(str::trim).ok_or_else(|| self.type_error(allowed))
    }

    /// A list of texts. `allowed` describes valid ones, for the error.
    fn texts(&self, allowed: &str) -> Result<Vec<&'a str>, ConfigError> {
        let texts: Option<Vec<&str>> = match self.raw {
            RawSetting::Word(word) => word
                .to_str()
                .map(|text| text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect())
                .filter(|texts: &Vec<&str>| !texts.is_empty()),
            RawSetting::Words(words) => words.iter().map(|word| word.to_str()).collect(),
            RawSetting::Toml { value, .. } => match value.get_ref() {
                DeValue::Array(values) => values.iter().map(|value| value.get_ref().as_str()).collect(),
                value => value.as_str().map(|one| vec![one]),
            },
        };
        texts.ok_or_else(|| self.type_error(allowed))
    }

    /// A whole number in `range`.
    pub(super) fn number(&self, range: &RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let number = match self.raw {
            RawSetting::Word(word) => word.to_str().and_then(|text| text.trim().parse().ok()),
            RawSetting::Words(_) => None,
            RawSetting::Toml { value, .. } => match value.get_ref() {
                DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            },
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.type_error(format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// True or false.
    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        let boolean = match self.raw {
            RawSetting::Word(word) => match word.to_str().map(str::trim) {
                Some("true" | "1" | "yes") => Some(true),
                Some("false" | "0" | "no") => Some(false),
                _ => None,
            },
            RawSetting::Words(_) => None,
            RawSetting::Toml { value, .. } => value.get_ref().as_bool(),
        };
        boolean.ok_or_else(|| self.type_error("true or false"))
    }

    /// A path. A relative path in a file is relative to the file's directory.
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        match self.raw {
            RawSetting::Word(word) if word.is_empty() => Err(self.error("a path", "")),
            RawSetting::Word(word) => Ok(word.into()),
            RawSetting::Toml { value, base } => match value.get_ref().as_str() {
                Some("") => Err(self.error("a path", "")),
                Some(path) => Ok(base.join(path)),
                None => Err(self.type_error("a path")),
            },
            RawSetting::Words(_) => Err(self.type_error("a path")),
        }
    }

    /// The position of one of `names`.
    pub(super) fn choice(&self, names: &[&str]) -> Result<usize, ConfigError> {
        let allowed = names.join(", ");
        let text = self.text(&allowed)?;
        names.iter().position(|name| *name == text).ok_or_else(|| self.error(allowed, text))
    }

    /// A list whose items `parse` reads. It returns `None` for an item that is not `allowed`, and the error then shows what
    /// `describe` makes of the item.
    pub(super) fn list<T>(
        &self,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
        describe: impl Fn(&str) -> String,
    ) -> Result<Vec<T>, ConfigError> {
        let parse = |text| parse(text).ok_or_else(|| self.error(allowed, describe(text)));
        self.texts(allowed)?.into_iter().map(parse).collect()
    }
}
