//! Settings on the command line.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{
    setting::{Flag, Kind, Setting},
    table::{self, SETTINGS},
};

/// Flags of all commands.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Directory of the configuration file, the data and the models [env: NEARFIELD_HOME]
    #[arg(long, value_name = "DIR", global = true)]
    pub home: Option<PathBuf>,
    /// Configuration file (default: nearfield.toml in the home directory) [env: NEARFIELD_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Settings that have a flag in all commands.
    #[command(flatten)]
    pub settings: CommonSettings,
}

/// Flags of commands that start a server.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeFlags {
    /// Settings that have a flag in these commands only.
    #[command(flatten)]
    pub settings: ServerOnlySettings,
}

impl Flags {
    /// These flags with the value of one setting added, or replaced. Panics if no setting has this key.
    pub fn with(mut self, key: &str, value: impl Into<OsString>) -> Flags {
        self.settings.0.set(key, value.into());
        self
    }
}

impl ServeFlags {
    /// As [`Flags::with`]; several values of a repeatable flag add up.
    pub fn with(mut self, key: &str, value: impl Into<OsString>) -> ServeFlags {
        self.settings.0.set(key, value.into());
        self
    }
}

/// The values of settings on a command line, as they were given. Never shown: some are secrets.
#[derive(Clone, Default)]
struct FlagValues(BTreeMap<&'static str, Vec<OsString>>);

impl FlagValues {
    fn set(&mut self, key: &str, value: OsString) {
        let setting = table::find(key).unwrap_or_else(|| panic!("there is no setting {key}"));
        let values = self.0.entry(setting.key).or_default();
        if !matches!(setting.kind, Kind::List { .. }) {
            values.clear();
        }
        values.push(value);
    }

    /// Reads the flags of those settings that `has_flag` selects.
    fn from_matches(matches: &ArgMatches, has_flag: fn(&Setting) -> bool) -> FlagValues {
        let mut values = FlagValues::default();
        for setting in SETTINGS.iter().filter(|setting| has_flag(setting)) {
            if matches!(setting.kind, Kind::Switch { .. }) {
                if matches.get_flag(setting.key) {
                    values.set(setting.key, "true".into());
                }
                continue;
            }
            for value in matches.get_many::<OsString>(setting.key).into_iter().flatten() {
                values.set(setting.key, value.clone());
            }
        }
        values
    }
}

impl fmt::Debug for FlagValues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Defines the flags of the settings that `$has_flag` selects.
macro_rules! setting_flags {
    ($(#[$doc:meta])* $name:ident, $has_flag:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name(FlagValues);

        impl $name {
            /// Whether the flag of the setting `key` was given.
            pub fn contains(&self, key: &str) -> bool {
                self.0.0.contains_key(key)
            }

            /// The settings whose flags were given, with the values.
            pub(super) fn iter(&self) -> impl Iterator<Item = (&'static Setting, &Vec<OsString>)> {
                self.0.0.iter().filter_map(|(key, values)| Some((table::find(key)?, values)))
            }
        }

        impl Args for $name {
            fn augment_args(command: Command) -> Command {
                let settings = SETTINGS.iter().filter(|setting| ($has_flag)(setting));
                command.args(settings.filter_map(Setting::argument))
            }

            fn augment_args_for_update(command: Command) -> Command {
                $name::augment_args(command)
            }
        }

        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<$name, clap::Error> {
                Ok($name(FlagValues::from_matches(matches, $has_flag)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = $name::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

setting_flags!(
    /// Values of settings that have a flag in all commands.
    CommonSettings,
    |setting: &Setting| matches!(setting.flag, Flag::All(_))
);
setting_flags!(
    /// Values of settings that have a flag only in commands that start a server.
    ServerOnlySettings,
    |setting: &Setting| matches!(setting.flag, Flag::Serve(_))
);
