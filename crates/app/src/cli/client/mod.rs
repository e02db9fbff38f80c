//! How commands reach the data: requests to the HTTP interface.
//!
//! If `--url` names a server, requests go over the network; if a server holds the data directory, through its Unix socket
//! there. Otherwise, and for Redis, the service is opened in this process and its routes are called without a socket.

mod discovery;
mod in_process;
#[cfg(unix)]
mod local;
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

/// Flags of the commands that reach the data.
#[derive(Clone, Default, clap::Args)]
pub(crate) struct ClientFlags {
    /// Server to use, such as http://127.0.0.1:8000. Without it: the Redis of --store, the server that holds the data
    /// directory, or the data directory itself
    #[arg(long, value_name = "URL", env = "NEARFIELD_URL")]
    url: Option<String>,
    /// API key for the server. Other users of the machine can see flags: prefer the environment [env:
    /// NEARFIELD_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
}

impl fmt::Debug for ClientFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientFlags").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A connection to the data.
#[derive(Debug)]
pub(crate) enum Client {
    /// A server on the network or on this machine.
    Remote(Remote),
    /// A service in this process.
    InProcess(InProcess),
}

impl Client {
    /// Connects to the server given by `--url`; otherwise opens the store in this process or, if a server holds it,
    /// connects to that server.
    pub(crate) fn open(settings: &Settings, flags: &ClientFlags) -> anyhow::Result<Client> {
        let key = flags.api_key.as_deref().or(settings.client_key.as_ref().map(|key| key.reveal()));
        // An empty variable counts as unset.
        if let Some(url) = flags.url.as_deref().filter(|url| !url.is_empty()) {
            let trust = TrustedCertificates::from_file(settings.ca_cert.as_deref())?;
            return Ok(Client::Remote(Remote::new(url, key, trust)?));
        }
        match settings.server.service.store {
            Store::Directory => discovery::find(settings, key),
            Store::Redis(_) => Client::open_in_process(settings),
        }
    }

    /// The server that holds the data directory, or else the one at the configured address; with `url`, the one there.
    /// It gets no key, and no store is opened.
    pub(crate) fn server(settings: &Settings, url: Option<&str>) -> anyhow::Result<Client> {
        let url = match url.filter(|url| !url.is_empty()) {
            Some(url) => url.to_owned(),
            None => match discovery::holder(settings)? {
                Some(remote) => return Ok(Client::Remote(remote)),
                None => settings.server.url(),
            },
        };
        let trust = TrustedCertificates::from_file(settings.ca_cert.as_deref())?;
        Ok(Client::Remote(Remote::new(&url, None, trust)?))
    }

    /// Opens the store in this process.
    pub(crate) fn open_in_process(settings: &Settings) -> anyhow::Result<Client> {
        Ok(Client::InProcess(InProcess::open(settings)?))
    }

    /// The server's URL, if there is a server.
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Client::Remote(remote) => Some(remote.url()),
            Client::InProcess(_) => None,
        }
    }

    /// Writes the body of a response to `out` as it arrives.
    pub(crate) fn download(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        match self {
            Client::Remote(remote) => remote.download(path, out),
            Client::InProcess(in_process) => in_process.download(path, out),
        }
    }

    /// Executes a request and waits for the complete response. A response with any status is `Ok`.
    pub(crate) fn execute(&self, request: &ApiRequest<'_>) -> anyhow::Result<ApiResponse> {
        match self {
            Client::Remote(remote) => Ok(remote.execute(request)?),
            Client::InProcess(in_process) => in_process.execute(request),
        }
    }

    /// Sends a GET request. An error status is an error.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: impl AsRef<str>) -> anyhow::Result<T> {
        self.execute(&ApiRequest { method: Method::GET, path: path.as_ref(), body: None })?
            .error_for_status()?
            .json()
    }

    /// Sends a request with a JSON body. An error status is an error.
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
