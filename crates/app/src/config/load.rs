//! Reads the sources: flags, environment, configuration file.

use std::{ffi::OsString, path::PathBuf};

use etcetera::AppStrategy as _;

use super::{
    assignments::Assignments,
    builder::SettingsBuilder,
    error::ConfigError,
    file,
    flags::{Flags, ServeFlags},
    settings::Settings,
};

/// Name of the configuration file in the home directory.
pub const FILE_NAME: &str = "nearfield.toml";

impl Settings {
    /// The settings of this process, from `flags`, its environment and the configuration file. `serve` holds the flags of
    /// commands that start a server.
    pub fn load(flags: &Flags, serve: Option<&ServeFlags>) -> Result<Settings, ConfigError> {
        Settings::from_sources(flags, serve, std::env::vars_os())
    }

    /// [`Settings::load`] with another environment.
    pub fn from_sources(
        flags: &Flags,
        serve: Option<&ServeFlags>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Settings, ConfigError> {
        let mut warnings = Vec::new();
        let environment = Environment::read(environment, &mut warnings)?;
        let flag_values = Assignments::from_flags(flags, serve)?;
        let home = match flags.home.clone().or(environment.home) {
            Some(home) => home,
            None => platform_home()?,
        };
        let file_values = match flags.config.clone().or(environment.config) {
            Some(path) => file::read(&path)?,
            None => {
                let path = home.join(FILE_NAME);
                if path.try_exists().unwrap_or(true) { file::read(&path)? } else { Assignments::default() }
            }
        };
        let mut settings = SettingsBuilder::new(home);
        settings.server.notify_socket = environment.notify_socket;
        let permanent = flag_values.or(environment.values);
        permanent.apply(&mut settings);
        settings.server.keys.permanent = settings.keys().len();
        permanent.or(file_values).apply(&mut settings);
        settings.build(warnings)
    }
}

/// What the environment sets.
#[derive(Default)]
pub(super) struct Environment {
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    /// The service manager's socket.
    notify_socket: Option<OsString>,
    pub(super) values: Assignments,
}

impl Environment {
    /// Reads the variables named `NEARFIELD_*`. An empty one counts as unset. An unknown one is a warning, not an error:
    /// Kubernetes gives every container variables named after its services, such as `NEARFIELD_PORT`.
    pub(super) fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        warnings: &mut Vec<String>,
    ) -> Result<Environment, ConfigError> {
        let mut environment = Environment::default();
        for (name, value) in variables {
            if name == "NOTIFY_SOCKET" {
                environment.notify_socket = Some(value);
                continue;
            }
            let Some(name) = name.to_str().filter(|name| name.starts_with("NEARFIELD_")) else { continue };
            if value.is_empty() {
                continue;
            }
            match name {
                "NEARFIELD_HOME" => environment.home = Some(value.into()),
                "NEARFIELD_CONFIG" => environment.config = Some(value.into()),
                _ if environment.values.read_variable(name, &value)? => {}
                _ => warnings.push(format!("unknown environment variable {name} is ignored")),
            }
        }
        Ok(environment)
    }
}

fn platform_home() -> Result<PathBuf, ConfigError> {
    let strategy = etcetera::choose_app_strategy(etcetera::AppStrategyArgs {
        top_level_domain: "dev".to_owned(),
        author: "nearfield".to_owned(),
        app_name: "nearfield".to_owned(),
    })
    .map_err(|_| ConfigError::NoHome)?;
    Ok(strategy.data_dir())
}
