//! `nearfield serve`.

use anyhow::Context as _;

use server::serve::{ServeError, Server};

use super::{exit::Exit, session::Session};
use crate::{
    config::{ConfigError, ServeFlags, Settings},
    log::start_log,
    stderr,
};

/// Start the HTTP server with the API and the search page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stops on Ctrl-C or SIGTERM after finishing the requests in flight. Listening on any address other than loopback
requires an API key.

Examples:
  nearfield serve
  nearfield serve --port 8080
  nearfield serve --store redis://127.0.0.1:6379/0
  NEARFIELD_API_KEY=... nearfield serve --host 0.0.0.0 --cors-origin https://app.example.com")]
pub(crate) struct ServeArgs {
    /// IP address to listen on, overriding the one of --listen
    #[arg(long, value_name = "ADDRESS", conflicts_with = "listen")]
    host: Option<std::net::IpAddr>,
    /// Port to listen on, overriding the one of --listen
    #[arg(long, short, value_name = "PORT", conflicts_with = "listen")]
    port: Option<u16>,
    #[command(flatten)]
    flags: ServeFlags,
}

impl ServeArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        stderr::enqueue().context("starting the log")?;
        let mut settings = session.settings(Some(&self.flags))?;
        if let Some(host) = self.host {
            settings.server.listen.set_ip(host);
        }
        if let Some(port) = self.port {
            settings.server.listen.set_port(port);
        }
        start_log(&settings)?;
        // Bind first: an address in use should be reported before the store is opened.
        let server = Server::bind(&settings.server()?, false)?;
        let (flags, serve) = (session.flags.clone(), self.flags);
        run(server, move || Settings::load(&flags, Some(&serve)))?;
        Ok(Exit::Done)
    }
}

/// Serves until a signal stops it.
pub(super) fn run(
    server: Server,
    reload_settings: impl Fn() -> Result<Settings, ConfigError> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    match server.run(move || Ok(reload_settings()?.server_keys())) {
        // Report it like commands that open the store themselves.
        Err(ServeError::Open(error)) => Err(error.into()),
        served => Ok(served?),
    }
}
