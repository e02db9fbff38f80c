//! Finds out who holds the data directory: this process, a server, or another process.

use axum::http::Method;

use super::{Client, in_process::InProcess, message::ApiRequest, remote::Remote, trust::TrustedCertificates};
use crate::{cli::error::ConnectionError, config::Settings};
use server::serve::ServerAddress;

/// Opens the data directory or, if a server holds it, connects to that server. The lock is tried first: a killed
/// server leaves its address file behind, and another server may since have taken the address.
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
    let mut trust = TrustedCertificates::from_file(settings.ca_cert.as_deref())?;
    if let Some(certificate) = &server.certificate {
        trust = trust.with_local_server(certificate)?;
    }
    let remote = Remote::new(&server.url, key, trust)?;
    match remote.execute(&ApiRequest { method: Method::GET, path: "/healthz", body: None }) {
        Ok(_) => Ok(Client::Remote(remote)),
        Err(error) => {
            let holder = format!("process {} (a server at {}: {error})", server.pid, server.url);
            Err(ConnectionError::Locked { data_dir, holder }.into())
        }
    }
}

/// The code of the error that another process holds the data directory.
const LOCKED: &str = "data-locked";
