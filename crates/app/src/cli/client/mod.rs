//! The one way commands reach the data: calls of the HTTP interface.
//!
//! Where a server holds the data directory (or `--url` names one) they go over the network; where
//! none does, and where documents are kept in a Redis, the service is opened in this process and its
//! routes are called without a socket.

mod discovery;
mod in_process;
mod message;
mod path;
mod remote;
mod tls;
mod trust;

use std::{fmt, io::Write};

use axum::http::Method;
use serde::de::DeserializeOwned;

use self::{in_process::InProcess, remote::Remote, trust::TrustedCertificates};
use crate::config::Settings;
use service::Store;

pub(crate) use message::{ApiRequest, ApiResponse};
pub(crate) use path::ApiPath;

/// Flags of every command that reaches the data.
#[derive(Clone, Default, clap::Args)]
pub(crate) struct ClientFlags {
    /// Server to talk to, such as http://127.0.0.1:8000. Without it: the Redis of --store, the server
    /// that has the data directory, or the data directory itself
    #[arg(long, value_name = "URL", env = "NEARFIELD_URL")]
    url: Option<String>,
    /// The server's API key; safer in the environment, which other users cannot read
    /// [env: NEARFIELD_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
}

impl fmt::Debug for ClientFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientFlags").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A way to the data.
#[derive(Debug)]
pub(crate) enum Client {
    /// Over the network.
    Remote(Remote),
    /// In this process.
    InProcess(InProcess),
}

impl Client {
    /// The server that is named; or else the store, in this process; or else the server that has it.
    pub(crate) fn open(settings: &Settings, flags: &ClientFlags) -> anyhow::Result<Client> {
        let key = flags.api_key.as_deref().or(settings.client_key.as_ref().map(|key| key.reveal()));
        // An empty variable counts as not set.
        if let Some(url) = flags.url.as_deref().filter(|url| !url.is_empty()) {
            let trust = TrustedCertificates::from_file(settings.ca_cert.as_deref())?;
            return Ok(Client::Remote(Remote::new(url, key, trust)?));
        }
        match settings.server.service.store {
            Store::Directory => discovery::find(settings, key),
            Store::Redis(_) => Client::open_in_process(settings),
        }
    }

    /// The store itself, whatever server there is.
    pub(crate) fn open_in_process(settings: &Settings) -> anyhow::Result<Client> {
        Ok(Client::InProcess(InProcess::open(settings)?))
    }

    /// The server's address, if there is one.
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Client::Remote(remote) => Some(remote.url()),
            Client::InProcess(_) => None,
        }
    }

    /// Writes the body of an answer to `out` as it comes.
    pub(crate) fn download(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        match self {
            Client::Remote(remote) => remote.download(path, out),
            Client::InProcess(here) => here.download(path, out),
        }
    }

    /// Makes a call; blocks until the whole answer is there. An answer of any status is `Ok`.
    pub(crate) fn execute(&self, request: &ApiRequest<'_>) -> anyhow::Result<ApiResponse> {
        match self {
            Client::Remote(remote) => Ok(remote.execute(request)?),
            Client::InProcess(in_process) => in_process.execute(request),
        }
    }

    /// GET; a failure is an error.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: impl AsRef<str>) -> anyhow::Result<T> {
        self.execute(&ApiRequest { method: Method::GET, path: path.as_ref(), body: None })?
            .error_for_status()?
            .json()
    }

    /// Any method with a JSON body; a failure is an error.
    pub(crate) fn send(
        &self,
        method: Method,
        path: impl AsRef<str>,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<ApiResponse> {
        let body = body.map(serde_json::to_vec).transpose()?;
        let body = body.as_deref().map(|body| ("application/json", body));
        Ok(self.execute(&ApiRequest { method, path: path.as_ref(), body })?.error_for_status()?)
    }
}
