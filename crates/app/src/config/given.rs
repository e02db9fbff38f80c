//! One value as a source gives it, and how it is read.

use std::{
    ffi::OsStr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeValue};

use super::ConfigError;

/// A value of the setting `key`, found at `from`.
pub(super) struct Given<'a> {
    pub(super) key: &'static str,
    /// Where it was set, for messages.
    pub(super) from: String,
    pub(super) raw: Raw<'a>,
}

/// A value before it is read.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// Of an environment variable or a flag. Lists have commas.
    Word(&'a OsStr),
    /// Of a flag that may be repeated.
    Words(&'a [String]),
    /// Of a file in the directory `base`.
    Toml { value: &'a Spanned<DeValue<'a>>, base: &'a Path },
}

impl<'a> Given<'a> {
    /// The error of a value that is none of `allowed`; `found` is no secret.
    pub(super) fn refuse(&self, allowed: impl Into<String>, found: impl Into<String>) -> ConfigError {
        let (from, allowed, found) = (self.from.clone(), allowed.into(), found.into());
        ConfigError::Value { from, key: self.key, allowed, found }
    }

    /// As [`Given::refuse`], for a value of the wrong type. A string is not shown: it may be a key in the wrong place.
    fn refuse_type(&self, allowed: impl Into<String>) -> ConfigError {
        let found = match self.raw {
            Raw::Word(word) => match word.to_str() {
                Some(text) => text.to_owned(),
                None => "what is not Unicode".to_owned(),
            },
            Raw::Words(words) => words.join(","),
            Raw::Toml { value, .. } => match value.get_ref() {
                DeValue::Integer(number) => number.to_string(),
                DeValue::Float(number) => number.to_string(),
                DeValue::Boolean(boolean) => boolean.to_string(),
                DeValue::Datetime(_) => "a date or time".to_owned(),
                DeValue::String(_) => "a string".to_owned(),
                DeValue::Array(_) => "an array".to_owned(),
                DeValue::Table(_) => "a table".to_owned(),
            },
        };
        self.refuse(allowed, found)
    }

    /// A text; `allowed` says which ones.
    pub(super) fn text(&self, allowed: &str) -> Result<&'a str, ConfigError> {
        let text = match self.raw {
            Raw::Word(word) => word.to_str(),
            Raw::Words(_) => None,
            Raw::Toml { value, .. } => value.get_ref().as_str(),
        };
        text.map(str::trim).ok_or_else(|| self.refuse_type(allowed))
    }

    /// Texts; `allowed` says which ones.
    pub(super) fn texts(&self, allowed: &str) -> Result<Vec<&'a str>, ConfigError> {
        let texts: Option<Vec<&str>> = match self.raw {
            Raw::Word(word) => word
                .to_str()
                .map(|text| text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect())
                .filter(|texts: &Vec<&str>| !texts.is_empty()),
            Raw::Words(words) => Some(words.iter().map(String::as_str).collect()),
            Raw::Toml { value, .. } => match value.get_ref() {
                DeValue::Array(values) => values.iter().map(|value| value.get_ref().as_str()).collect(),
                value => value.as_str().map(|one| vec![one]),
            },
        };
        texts.ok_or_else(|| self.refuse_type(allowed))
    }

    /// A whole number of `range`.
    pub(super) fn number(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let number = match self.raw {
            Raw::Word(word) => word.to_str().and_then(|text| text.trim().parse().ok()),
            Raw::Words(_) => None,
            Raw::Toml { value, .. } => match value.get_ref() {
                DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            },
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.refuse_type(format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// [`Given::number`] of things in memory.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Result<usize, ConfigError> {
        self.number(range)
            .map(|number| usize::try_from(number).expect("every range ends below the smallest usize in use"))
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        let boolean = match self.raw {
            Raw::Word(word) => match word.to_str().map(str::trim) {
                Some("true" | "1" | "yes") => Some(true),
                Some("false" | "0" | "no") => Some(false),
                _ => None,
            },
            Raw::Words(_) => None,
            Raw::Toml { value, .. } => value.get_ref().as_bool(),
        };
        boolean.ok_or_else(|| self.refuse_type("true or false"))
    }

    /// A path; a relative one in a file is relative to the file.
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        match self.raw {
            Raw::Word(word) => Ok(word.into()),
            Raw::Toml { value, base } => match value.get_ref().as_str() {
                Some("") => Err(self.refuse("a path", "")),
                Some(path) => Ok(base.join(path)),
                None => Err(self.refuse_type("a path")),
            },
            Raw::Words(_) => Err(self.refuse_type("a path")),
        }
    }

    /// One of `all`, by its name.
    pub(super) fn one_of<T: Copy>(&self, all: &[T], name: fn(T) -> &'static str) -> Result<T, ConfigError> {
        let allowed = all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
        let text = self.text(&allowed)?;
        all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| self.refuse(allowed, text))
    }

    /// Each of the texts as `read` reads it, which gives `None` for what is not `allowed`.
    pub(super) fn each<T>(
        &self,
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
        describe: impl Fn(&str) -> String,
    ) -> Result<Vec<T>, ConfigError> {
        let read = |text| read(text).ok_or_else(|| self.refuse(allowed, describe(text)));
        self.texts(allowed)?.into_iter().map(read).collect()
    }
}
