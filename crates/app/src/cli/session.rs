//! The context that every command runs in.

use super::{
    client::{Client, ClientFlags},
    terminal::Terminal,
};
use crate::{
    config::{ConfigError, Flags, ServeFlags, Settings},
    log::start_log,
};

/// What every command is run with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) flags: Flags,
    pub(crate) terminal: Terminal,
}

impl Session {
    /// The settings. `serve` holds the flags of commands that start a server. Prints the warnings.
    pub(crate) fn settings(&self, serve: Option<&ServeFlags>) -> Result<Settings, ConfigError> {
        let settings = self.settings_with_flags(&self.flags, serve)?;
        for warning in &settings.warnings {
            self.terminal.warn(warning);
        }
        Ok(settings)
    }

    /// The settings with other flags, without printing the warnings.
    pub(crate) fn settings_with_flags(
        &self,
        flags: &Flags,
        serve: Option<&ServeFlags>,
    ) -> Result<Settings, ConfigError> {
        // Variables of this program and its tests that are not settings.
        const NOT_SETTINGS: [&str; 6] = [
            "NEARFIELD_URL",
            "NEARFIELD_COPY_FROM",
            "NEARFIELD_COPY_TO",
            "NEARFIELD_REQUIRE_MODEL",
            "NEARFIELD_REQUIRE_REDIS",
            "NEARFIELD_REQUIRE_TOOLS",
        ];
        let environment =
            std::env::vars_os().filter(|(name, _)| !NOT_SETTINGS.iter().any(|other| name == other));
        Settings::from_sources(flags, serve, environment)
    }

    /// The settings of a short-lived command: it logs only warnings unless `--log` or NEARFIELD_LOG is set.
    pub(crate) fn command_settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = self.settings(None)?;
        if !self.flags.settings.contains("log") && std::env::var_os("NEARFIELD_LOG").is_none() {
            settings.log = "warn".to_owned();
        }
        start_log(&settings)?;
        Ok(settings)
    }

    /// A client for the server or the store.
    pub(crate) fn connect(&self, flags: &ClientFlags) -> anyhow::Result<Client> {
        Client::open(&self.command_settings()?, flags)
    }
}
