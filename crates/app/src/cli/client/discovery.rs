//! Finds out who holds the data directory: this process, a server, or another process.

use std::path::Path;

use axum::http::Method;

use super::{Client, in_process::InProcess, message::ApiRequest, remote::Remote};
use crate::{
    cli::error::{ConnectionError, UsageError},
    config::Settings,
};
use server::serve::ServerAddress;

/// Opens the data directory or, if a server holds it, connects to that server. The lock is tried first: a killed
/// server leaves its files behind.
pub(super) fn find(settings: &Settings, key: Option<&str>) -> anyhow::Result<Client> {
    let error = match InProcess::open(settings) {
        Ok(in_process) => return Ok(Client::InProcess(in_process)),
        Err(error) => error,
    };
    if error.downcast_ref::<service::Error>().is_none_or(|error| error.code != LOCKED) {
        return Err(error);
    }
    let data_dir = settings.server.service.data_dir.clone();
    let Some(server) = ServerAddress::read(&data_dir).unwrap_or_default() else {
        return Err(ConnectionError::Locked {
            data_dir,
            holder: "another process (a command, or a server that is just starting)".into(),
        }
        .into());
    };
    let remote = connect(&data_dir, &server.url, key)?;
    let asked = remote
        .as_ref()
        .map(|remote| remote.execute(&ApiRequest { method: Method::GET, path: "/healthz", body: None }));
    match (remote, asked) {
        (Some(remote), Some(Ok(_))) => Ok(Client::Remote(remote)),
        (_, asked) => {
            let error = asked.and_then(Result::err).map(|error| format!(": {error}")).unwrap_or_default();
            let holder = format!(
                "process {} (a server at {} that does not answer in the directory{error}; --url {} asks that address, \
                 whoever listens there)",
                server.pid, server.url, server.url
            );
            Err(ConnectionError::Locked { data_dir, holder }.into())
        }
    }
}

/// The server that has written its address into the data directory, if there is one. No key is sent to it.
pub(super) fn holder(settings: &Settings) -> anyhow::Result<Option<Remote>> {
    let data_dir = &settings.server.service.data_dir;
    match ServerAddress::read(data_dir).unwrap_or_default() {
        Some(server) => Ok(connect(data_dir, &server.url, None)?),
        None => Ok(None),
    }
}

/// The server that holds the directory. It is reached through a socket in the directory, because the key must not be
/// sent to a program that has taken the address of a killed server.
#[cfg(unix)]
fn connect(data_dir: &Path, url: &str, key: Option<&str>) -> Result<Option<Remote>, UsageError> {
    Remote::local(data_dir, url, key).map(Some)
}

/// Other systems have no such sockets.
#[cfg(not(unix))]
fn connect(_data_dir: &Path, _url: &str, _key: Option<&str>) -> Result<Option<Remote>, UsageError> {
    Ok(None)
}

/// The code of the error that another process holds the data directory.
const LOCKED: &str = "data-locked";
