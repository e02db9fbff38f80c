//! `nearfield serve`.

use server::serve::{ServeError, Server};

use super::{exit::Exit, session::Session};
use crate::{
    config::{ConfigError, ServeFlags, Settings},
    log::start_log,
};

/// Serve HTTP and the search page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stops at Ctrl-C or SIGTERM, after the requests in flight. Any address but loopback needs an API key.

Examples:
  nearfield serve
  nearfield serve --port 8080
  nearfield serve --store redis://127.0.0.1:6379/0
  NEARFIELD_API_KEY=... nearfield serve --host 0.0.0.0 --cors-origin https://app.example.com")]
pub(crate) struct ServeArgs {
    /// IP address to serve on, in place of --listen's
    #[arg(long, value_name = "ADDRESS", conflicts_with = "listen")]
    host: Option<std::net::IpAddr>,
    /// Port to serve on, in place of --listen's
    #[arg(long, short, value_name = "PORT", conflicts_with = "listen")]
    port: Option<u16>,
    #[command(flatten)]
    flags: ServeFlags,
}

impl ServeArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let mut settings = session.settings(Some(&self.flags))?;
        if let Some(host) = self.host {
            settings.server.listen.set_ip(host);
        }
        if let Some(port) = self.port {
            settings.server.listen.set_port(port);
        }
        start_log(&settings)?;
        // Listening comes first: a taken port is better known before the data is opened.
        let server = Server::bind(&settings.server()?, false)?;
        let (flags, serve) = (session.flags.clone(), self.flags);
        run(server, move || Settings::load(&flags, Some(&serve)))?;
        Ok(Exit::Done)
    }
}

/// Serves until told to stop.
pub(super) fn run(
    server: Server,
    reload_settings: impl Fn() -> Result<Settings, ConfigError> + Send + 'static,
) -> anyhow::Result<()> {
    match server.run(move || Ok(reload_settings()?.server_keys())) {
        // As a command tells it that opens the store itself.
        Err(ServeError::Open(error)) => Err(error.into()),
        served => Ok(served?),
    }
}
