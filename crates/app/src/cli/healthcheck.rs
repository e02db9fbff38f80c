//! `nearfield healthcheck`.

use std::{sync::mpsc, thread, time::Duration};

use axum::http::Method;
use serde::Deserialize;

use super::{
    client::{ApiRequest, ApiResponse, Client},
    exit::Exit,
    session::Session,
};

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Check whether the server is ready, for container runtimes and load balancers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks /readyz of the server that holds the data directory, or else of the one at the address of --listen, and waits up to
5 seconds. No API key is sent, and no store is opened.

Exit codes: 0 ready, 4 not ready, no answer, or another program's answer; 2 invalid command line or configuration.

Examples:
  nearfield healthcheck
  nearfield healthcheck --url https://search.example.com")]
pub(crate) struct HealthcheckArgs {
    /// Server to ask, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL", env = "NEARFIELD_URL")]
    url: Option<String>,
}

/// The part of the response of `/readyz` that decides.
#[derive(Deserialize)]
struct Readiness {
    ready: bool,
}

impl HealthcheckArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let settings = session.command_settings()?;
        let client = Client::server(&settings, self.url.as_deref())?;
        let url = client.url().unwrap_or_default().to_owned();
        let (answer, answered) = mpsc::channel();
        // Ends with the process if the server does not answer in time.
        thread::spawn(move || {
            let request = ApiRequest { method: Method::GET, path: "/readyz", body: None };
            let _ = answer.send(client.execute(&request));
        });
        let reason = match answered.recv_timeout(TIMEOUT) {
            Ok(Ok(response)) if is_ready(&response) => {
                session.terminal.line("ready")?;
                return Ok(Exit::Done);
            }
            Ok(Ok(response)) => format!("{url} is not ready: {}", response.to_error().detail),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("{url} does not answer within {} seconds", TIMEOUT.as_secs()),
        };
        session.terminal.error(reason);
        Ok(Exit::Unavailable)
    }
}

/// Whether this is the answer of a Nearfield server that is ready.
fn is_ready(response: &ApiResponse) -> bool {
    response.status == 200 && response.json::<Readiness>().is_ok_and(|readiness| readiness.ready)
}
