//! What a setting is: its names, its values, its documentation, and where its value goes.

use std::{ffi::OsString, ops::RangeInclusive, path::PathBuf};

use clap::{Arg, ArgAction};

use super::{builder::SettingsBuilder, error::ConfigError, value::SettingValue};

/// One setting. Its key names it in the configuration file, `NEARFIELD_` + the key in capitals in the environment.
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// Which commands have a flag for it, and the placeholder of the flag's value.
    pub(super) flag: Flag,
    /// The flag's name, if it is not the key with hyphens.
    pub(super) flag_name: Option<&'static str>,
    pub(super) default: DefaultValue,
    /// One or two sentences for `--help` and the documentation.
    pub(super) help: &'static str,
}

/// The commands that have a flag for a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// None: file and environment only.
    None,
    /// All commands.
    All(&'static str),
    /// The commands that start a server.
    Serve(&'static str),
}

/// The default of a setting, for `--help` and the documentation.
#[derive(Clone, Copy)]
pub(super) enum DefaultValue {
    /// No value.
    None,
    /// The value that a new [`SettingsBuilder`] holds.
    Value(fn(&SettingsBuilder) -> String),
    /// A value that is chosen when the program runs, such as one that depends on the processor.
    Description(&'static str),
}

/// Stores a value that has been read.
pub(super) type Assignment = Box<dyn Fn(&mut SettingsBuilder)>;

/// The values a setting takes, and where they are stored.
pub(super) enum Kind {
    /// A whole number.
    Number { range: RangeInclusive<u64>, set: fn(&mut SettingsBuilder, u64) },
    /// True or false; its flag takes no value and means true.
    Switch { set: fn(&mut SettingsBuilder, bool) },
    /// A path. A relative path in the file is relative to the file's directory.
    Path { set: fn(&mut SettingsBuilder, PathBuf) },
    /// One of several names. `set` takes the position of the name.
    Choice { names: fn() -> Vec<&'static str>, set: fn(&mut SettingsBuilder, usize) },
    /// Text of any other form; `allowed` describes it.
    Text { allowed: &'static str, read: fn(&SettingValue<'_>, &str) -> Result<Assignment, ConfigError> },
    /// Several texts: a repeatable flag, a comma-separated variable, a TOML array.
    List { allowed: &'static str, read: fn(&SettingValue<'_>, &str) -> Result<Assignment, ConfigError> },
    /// An array of tables, which only the file can hold.
    Tables { allowed: &'static str, read: fn(&SettingValue<'_>, &str) -> Result<Assignment, ConfigError> },
}

impl Setting {
    /// Reads and checks a value.
    pub(super) fn read(&self, value: &SettingValue<'_>) -> Result<Assignment, ConfigError> {
        match self.kind {
            Kind::Number { ref range, set } => {
                let number = value.number(range)?;
                Ok(Box::new(move |settings| set(settings, number)))
            }
            Kind::Switch { set } => {
                let is_on = value.boolean()?;
                Ok(Box::new(move |settings| set(settings, is_on)))
            }
            Kind::Path { set } => {
                let path = value.path()?;
                Ok(Box::new(move |settings| set(settings, path.clone())))
            }
            Kind::Choice { names, set } => {
                let position = value.choice(&names())?;
                Ok(Box::new(move |settings| set(settings, position)))
            }
            Kind::Text { allowed, read } | Kind::List { allowed, read } | Kind::Tables { allowed, read } => {
                read(value, allowed)
            }
        }
    }

    /// The environment variable.
    pub(super) fn variable(&self) -> String {
        format!("NEARFIELD_{}", self.key.to_ascii_uppercase())
    }

    /// The flag's name, without hyphens in front.
    pub(super) fn long_flag(&self) -> String {
        self.flag_name.map_or_else(|| self.key.replace('_', "-"), str::to_owned)
    }

    /// The flag as an argument of a command line.
    pub(super) fn argument(&self) -> Option<Arg> {
        let (Flag::All(placeholder) | Flag::Serve(placeholder)) = self.flag else { return None };
        let argument = Arg::new(self.key)
            .long(self.long_flag())
            .help(self.flag_help())
            .global(matches!(self.flag, Flag::All(_)));
        Some(match self.kind {
            Kind::Switch { .. } => argument.action(ArgAction::SetTrue),
            _ => argument.value_name(placeholder).value_parser(clap::value_parser!(OsString)).action(
                if matches!(self.kind, Kind::List { .. }) { ArgAction::Append } else { ArgAction::Set },
            ),
        })
    }

    fn flag_help(&self) -> String {
        let default = match self.default {
            DefaultValue::Value(get) if !matches!(self.kind, Kind::Switch { .. }) => {
                format!(" [default: {}]", get(&SettingsBuilder::new("".into())))
            }
            DefaultValue::Description(text) => format!(" (default: {text})"),
            _ => String::new(),
        };
        let repeatable = if matches!(self.kind, Kind::List { .. }) { ". Repeatable" } else { "" };
        format!("{}{repeatable}{default} [env: {}]", self.help, self.variable())
    }
}
