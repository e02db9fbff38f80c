//! `nearfield get`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    client::{ApiPath, ClientFlags},
    collection,
    exit::Exit,
    session::Session,
    terminal::{self, BOLD, DIM},
};

/// Show one document
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --json: {id, seq, fields}, and expires_at_ms if the document expires.

Example:
  nearfield get kb-001 --json | jq .fields.title")]
pub(crate) struct GetArgs {
    /// Id of the document
    #[arg(value_name = "ID")]
    id: String,
    /// Collection; optional if there is only one
    #[arg(long, short, value_name = "NAME")]
    collection: Option<String>,
    /// Include vector fields
    #[arg(long)]
    vectors: bool,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Deserialize)]
struct FetchedDocument {
    id: String,
    seq: u64,
    expires_at_ms: Option<u64>,
    fields: Map<String, Value>,
}

impl GetArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let client = session.connect(&self.client)?;
        let name = collection::named_or_only(&client, self.collection.as_deref())?.name;
        let path = ApiPath::collection(&name)
            .segment("documents")
            .segment(&self.id)
            .query("vectors", self.vectors.then_some(true));
        let value: Value = client.get(path)?;
        let terminal = session.terminal;
        if terminal.json {
            terminal.json(&value)?;
            return Ok(Exit::Done);
        }
        let document: FetchedDocument = serde_json::from_value(value)?;
        let mut head =
            format!("{} in {name}, change {}", terminal::escape_controls(&document.id), document.seq);
        if let Some(expires_at_ms) = document.expires_at_ms {
            head.push_str(&format!(", expires at Unix time {:.3}", expires_at_ms as f64 / 1e3));
        }
        terminal.line(format_args!("{DIM}{head}{DIM:#}"))?;
        for (name, value) in &document.fields {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Array(tags) => {
                    let tags =
                        tags.iter().map(|tag| tag.as_str().map_or_else(|| tag.to_string(), str::to_owned));
                    tags.collect::<Vec<_>>().join(", ")
                }
                other => other.to_string(),
            };
            terminal.line(format_args!(
                "{BOLD}{}:{BOLD:#} {}",
                terminal::escape_controls(name),
                terminal::escape_controls(&text)
            ))?;
        }
        Ok(Exit::Done)
    }
}
