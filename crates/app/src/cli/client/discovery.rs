//! Whose the data directory is: ours, a server's that can be asked, or somebody's who is busy.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use axum::http::Method;
use serde::Deserialize;

use super::{Call, Client, Unreachable, in_process::InProcess, remote::Remote};
use crate::{config::Settings, service};

/// What a server writes beside the lock while it runs.
#[derive(Debug, Deserialize)]
struct Server {
    url: String,
    pid: u32,
}

/// Name of that file in the data directory.
const SERVER_FILE: &str = "server.json";

/// The data directory, or else the server that holds it. The lock is tried first: a killed server
/// leaves its file behind, and at the address in it another server may listen by now.
pub(super) fn find(settings: &Settings, key: Option<&str>) -> anyhow::Result<Client> {
    let error = match InProcess::open(settings) {
        Ok(in_process) => return Ok(Client::InProcess(in_process)),
        Err(error) => error,
    };
    if !error.downcast_ref::<service::Error>().is_some_and(|error| error.code == LOCKED) {
        return Err(error);
    }
    let data_dir = settings.data_dir.clone();
    let Some(server) = read(&data_dir.join(SERVER_FILE))? else {
        return Err(Unreachable::Locked {
            data_dir,
            holder: "another process (a command, or a server that is just starting)".into(),
        }
        .into());
    };
    let remote = Remote::new(&server.url, key)?;
    match remote.call(&Call { method: Method::GET, path: "/healthz", body: None }) {
        Ok(_) => Ok(Client::Remote(remote)),
        Err(error) => {
            let holder = format!("process {} (a server at {}: {error})", server.pid, server.url);
            Err(Unreachable::Locked { data_dir, holder }.into())
        }
    }
}

/// The code of the error that says another process holds the data directory.
const LOCKED: &str = "data-locked";

/// What the server wrote; nothing, if there is no such file or it is not complete yet.
fn read(path: &Path) -> anyhow::Result<Option<Server>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
