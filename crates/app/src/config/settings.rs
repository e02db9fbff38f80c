//! All settings, checked.

use std::path::PathBuf;

use server::{
    access::ApiKey,
    serve::{ServerKeys, ServerSettings},
};

use super::error::ConfigError;

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The home directory: by default, everything is below it.
    pub home: PathBuf,
    /// The server's settings, and in them those of the service. To start a server, take [`Settings::server`].
    pub server: ServerSettings,
    /// An API key in plain text, for commands that talk to a server.
    pub client_key: Option<ApiKey>,
    /// Certificates that these commands trust in addition to public authorities.
    pub ca_cert: Option<PathBuf>,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Values that are allowed but probably mistakes, one sentence each.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The settings to start a server with. An address that other machines can reach requires an API key.
    pub fn server(&self) -> Result<ServerSettings, ConfigError> {
        let server = &self.server;
        if !server.listen.ip().is_loopback() && server.keys.keys.is_empty() {
            return Err(ConfigError::Exposed { listen: server.listen });
        }
        Ok(server.clone())
    }

    /// The API keys that a server accepts.
    pub fn server_keys(&self) -> ServerKeys {
        self.server.keys.clone()
    }

    /// The configuration to open the service with.
    pub fn service(&self) -> service::Config {
        self.server.service.clone()
    }
}
