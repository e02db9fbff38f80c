//! The values of one source, read and checked.

use std::{collections::BTreeMap, ffi::OsStr};

use super::{
    builder::SettingsBuilder,
    error::ConfigError,
    flags::{Flags, ServeFlags},
    setting::{Assignment, Kind, Setting},
    table,
    value::{RawSetting, SettingValue},
};

/// The values of one source, by key.
#[derive(Default)]
pub(super) struct Assignments(BTreeMap<&'static str, Assignment>);

impl Assignments {
    /// What the command line sets.
    pub(super) fn from_flags(flags: &Flags, serve: Option<&ServeFlags>) -> Result<Assignments, ConfigError> {
        let mut assignments = Assignments::default();
        let values = flags.settings.iter().chain(serve.into_iter().flat_map(|flags| flags.settings.iter()));
        for (setting, words) in values {
            let location = format!("--{}", setting.long_flag());
            let raw = match (&setting.kind, &words[..]) {
                (Kind::List { .. }, words) => RawSetting::Words(words),
                (_, [.., last]) => RawSetting::Word(last),
                (_, []) => continue,
            };
            assignments.read(setting, &SettingValue { key: setting.key, location, raw })?;
        }
        Ok(assignments)
    }

    /// Reads the value of an environment variable; `false` if no setting has this variable.
    pub(super) fn read_variable(&mut self, name: &str, value: &OsStr) -> Result<bool, ConfigError> {
        let key = name.trim_start_matches("NEARFIELD_").to_ascii_lowercase();
        let Some(setting) = table::find(&key) else { return Ok(false) };
        let raw = RawSetting::Word(value);
        self.read(setting, &SettingValue { key: setting.key, location: name.to_owned(), raw })?;
        Ok(true)
    }

    /// Reads a value of `setting`.
    pub(super) fn read(
        &mut self,
        setting: &'static Setting,
        value: &SettingValue<'_>,
    ) -> Result<(), ConfigError> {
        self.0.insert(setting.key, setting.read(value)?);
        Ok(())
    }

    /// These values, and those of `fallback` where this source has none.
    pub(super) fn or(self, mut fallback: Assignments) -> Assignments {
        fallback.0.extend(self.0);
        fallback
    }

    /// Stores all values.
    pub(super) fn apply(&self, settings: &mut SettingsBuilder) {
        self.0.values().for_each(|assign| assign(settings));
    }
}
