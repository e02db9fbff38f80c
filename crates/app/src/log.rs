//! Logging to standard error, as text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::{
    config::{ConfigError, LOG_ALLOWED, Settings},
    stderr::LogWriter,
};

/// Starts logging as `settings` say. Has no effect if logging was started before.
pub(crate) fn start_log(settings: &Settings) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|_| ConfigError::Value {
        location: "log".to_owned(),
        key: "log",
        allowed: LOG_ALLOWED.to_owned(),
        found: settings.log.clone(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        // Otherwise a failed write would be reported with eprintln!, which panics if it fails.
        .log_internal_errors(false)
        .with_ansi(
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
        );
    let started = if settings.log_json { builder.json().try_init() } else { builder.try_init() };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}
