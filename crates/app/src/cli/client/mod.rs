//! The one way commands reach the data: calls of the HTTP interface.
//!
//! Where a server holds the data directory (or `--url` names one) they go over the network; where
//! none does, and where documents are kept in a Redis, the service is opened in this process and its
//! routes are called without a socket.

mod discovery;
mod in_process;
mod path;
mod remote;
mod tls;
mod trust;

use std::{fmt, io::Write, path::PathBuf, time::Duration};

use anyhow::Context as _;
use axum::http::{HeaderMap, Method, header};
use serde::de::DeserializeOwned;

use self::{in_process::InProcess, remote::Remote, trust::Trust};
use crate::config::Settings;
use service::Store;

pub(crate) use path::Path;

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

/// A request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// Content type and body.
    pub(crate) body: Option<(&'static str, &'a [u8])>,
}

/// An answer, of any status.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// How long to wait before trying again.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// An answer that is a failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
}

/// There is no answer to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// No server there, or not one that answers.
    #[error("no answer from {url}: {source}{hint}")]
    NoAnswer {
        url: String,
        #[source]
        source: Box<ureq::Error>,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// The data directory is another process's, and no server was found that could be asked.
    #[error("the data directory {} is in use by {holder}: wait for it to end, or stop it", data_dir.display())]
    Locked { data_dir: PathBuf, holder: String },
}

impl Unreachable {
    fn no_answer(url: &str, source: ureq::Error) -> Unreachable {
        let hint = if trust::is_refusal(&source) {
            " (if the certificate is the server's own, or of an authority of yours, name its file: --ca-cert FILE)"
        } else {
            ""
        };
        Unreachable::NoAnswer { url: url.to_owned(), source: Box::new(source), hint }
    }
}

/// What the server says of a failure (RFC 9457).
#[derive(serde::Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: String,
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
        let key = flags.api_key.as_deref().or(settings.own_key.as_ref().map(|key| key.reveal()));
        // An empty variable counts as not set.
        if let Some(url) = flags.url.as_deref().filter(|url| !url.is_empty()) {
            let trust = Trust::in_file(settings.ca_cert.as_deref())?;
            return Ok(Client::Remote(Remote::new(url, key, trust)?));
        }
        match settings.store {
            Store::Directory => discovery::find(settings, key),
            Store::Redis(_) => Client::open_here(settings),
        }
    }

    /// The store itself, whatever server there is.
    pub(crate) fn open_here(settings: &Settings) -> anyhow::Result<Client> {
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
    pub(crate) fn call(&self, call: &Call<'_>) -> anyhow::Result<Reply> {
        match self {
            Client::Remote(remote) => Ok(remote.call(call)?),
            Client::InProcess(in_process) => in_process.call(call),
        }
    }

    /// GET; a failure is an error.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: impl AsRef<str>) -> anyhow::Result<T> {
        self.call(&Call { method: Method::GET, path: path.as_ref(), body: None })?.accept()?.json()
    }

    /// Any method with a JSON body; a failure is an error.
    pub(crate) fn send(
        &self,
        method: Method,
        path: impl AsRef<str>,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<Reply> {
        let body = body.map(serde_json::to_vec).transpose()?;
        let body = body.as_deref().map(|body| ("application/json", body));
        Ok(self.call(&Call { method, path: path.as_ref(), body })?.accept()?)
    }
}

impl Reply {
    /// The answer, if it is one of success.
    pub(crate) fn accept(self) -> Result<Reply, Refusal> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refusal()) }
    }

    /// The answer as a failure.
    pub(crate) fn refusal(&self) -> Refusal {
        let problem = serde_json::from_slice::<Problem>(&self.body).ok();
        let (code, mut detail) = problem.map(|problem| (problem.code, problem.detail)).unwrap_or_default();
        if detail.is_empty() {
            let text = super::terminal::one_line(&String::from_utf8_lossy(&self.body), 200);
            detail = format!("the server answered with status {} and: {text:?}", self.status);
        }
        if self.status == 401 {
            detail.push_str(" (give the key with --api-key or NEARFIELD_API_KEY)");
        }
        Refusal { status: self.status, code, detail }
    }

    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).with_context(|| {
            let text = super::terminal::one_line(&String::from_utf8_lossy(&self.body), 200);
            format!("the answer is not what a Nearfield server answers: {text:?}")
        })
    }
}

/// The seconds of a `Retry-After` header.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let reply = |status, body: &str| Reply { status, retry_after: None, body: body.into() };
        let refusal = reply(422, r#"{"title":"x","detail":"no such field","code":"filter-field"}"#)
            .accept()
            .unwrap_err();
        assert_eq!((refusal.to_string().as_str(), refusal.code.as_str()), ("no such field", "filter-field"));
        let refusal = reply(502, "<html>\nBad gateway").accept().unwrap_err();
        assert!(refusal.to_string().contains("502") && refusal.to_string().contains("<html> Bad gateway"));
        assert!(reply(401, r#"{"detail":"no key"}"#).refusal().to_string().contains("NEARFIELD_API_KEY"));
        assert!(reply(204, "").accept().is_ok());
    }
}
