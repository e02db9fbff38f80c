//! `nearfield stats`.

use serde_json::{Map, Value};

use super::{
    client::ClientFlags,
    exit::Exit,
    session::Session,
    terminal::{self, thousands},
};

/// Show totals of the whole store
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --json: {documents, last_seq, durable_seq, durability, file_bytes, memory_bytes, commits, \
                        version}."
)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    client: ClientFlags,
}

impl StatsArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let client = session.connect(&self.client)?;
        let stats: Map<String, Value> = client.get("/stats")?;
        let terminal = session.terminal;
        if terminal.json {
            terminal.json(&stats)?;
            return Ok(Exit::Done);
        }
        for (name, value) in &stats {
            let shown = match (name.strip_suffix("_bytes"), value.as_u64()) {
                (Some(_), Some(count)) => terminal::bytes(count),
                (None, Some(count)) => thousands(count),
                (_, None) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            };
            let name = name.strip_suffix("_bytes").unwrap_or(name).replace('_', " ");
            terminal.line(format_args!("{name:<12} {shown}"))?;
        }
        if let Some(url) = client.url() {
            terminal.note(format_args!("(from the server at {url})"));
        }
        Ok(Exit::Done)
    }
}
