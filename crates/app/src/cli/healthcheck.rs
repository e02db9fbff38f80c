//! `nearfield healthcheck`.

use axum::http::Method;

use super::{
    client::{ApiRequest, Client},
    exit::Exit,
    session::Session,
};

/// Check whether the server is ready, for container runtimes and load balancers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks /readyz of the server that holds the data directory, or else of the one at the address of --listen. No API key is
sent, and no store is opened.

Exit codes: 0 ready, 4 not ready or no answer.

Examples:
  nearfield healthcheck
  nearfield healthcheck --url https://search.example.com")]
pub(crate) struct HealthcheckArgs {
    /// Server to ask, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL", env = "NEARFIELD_URL")]
    url: Option<String>,
}

impl HealthcheckArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let settings = session.command_settings()?;
        let client = Client::server(&settings, self.url.as_deref())?;
        let response = client.execute(&ApiRequest { method: Method::GET, path: "/readyz", body: None })?;
        response.error_for_status()?;
        session.terminal.line("ready")?;
        Ok(Exit::Done)
    }
}
