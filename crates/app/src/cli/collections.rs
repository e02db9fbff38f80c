//! `nearfield collections`.

use serde_json::Value;

use super::{
    client::ClientFlags,
    collection::{CollectionInfo, CollectionList},
    exit::Exit,
    session::Session,
    terminal::{self, bytes, thousands},
};

/// List collections
#[derive(Debug, clap::Args)]
#[command(after_help = "With --json: {collections: [{name, aliases, schema, documents, vectors, ...}]}.")]
pub(crate) struct CollectionsArgs {
    #[command(flatten)]
    client: ClientFlags,
}

impl CollectionsArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let value: Value = session.connect(&self.client)?.get("/collections")?;
        let terminal = session.terminal;
        if terminal.json {
            terminal.json(&value)?;
            return Ok(Exit::Done);
        }
        let CollectionList { collections } = serde_json::from_value(value)?;
        if collections.is_empty() {
            terminal.line("no collections")?;
            return Ok(Exit::Done);
        }
        let mut table = terminal::table(&["name", "documents", "vectors", "memory", "fields", "notes"]);
        for info in &collections {
            let fields = info.schema.fields.iter().map(|field| format!("{} {}", field.name, field.kind));
            table.add_row(vec![
                info.name.clone(),
                thousands(info.documents),
                thousands(info.vectors),
                bytes(info.memory_bytes),
                fields.collect::<Vec<_>>().join(", "),
                notes(info),
            ]);
        }
        terminal.line(table)?;
        Ok(Exit::Done)
    }
}

/// Notable facts about a collection.
fn notes(info: &CollectionInfo) -> String {
    let mut notes = Vec::new();
    if !info.aliases.is_empty() {
        notes.push(format!("aliases: {}", info.aliases.join(", ")));
    }
    if info.unembedded > 0 {
        notes.push(format!("{} without vectors yet", thousands(info.unembedded)));
    }
    if info.failures > 0 {
        let last = info.last_failure.as_deref().unwrap_or_default();
        let last = terminal::one_line(last, 80);
        notes.push(format!("{} do not match the schema (last: {last})", thousands(info.failures)));
    }
    if !info.shards.is_empty() {
        let on = info.shards.iter().map(|(shard, documents)| format!("{} on {shard}", thousands(*documents)));
        notes.push(on.collect::<Vec<_>>().join(", "));
    }
    if info.rebuilding {
        notes.push("rebuild in progress".to_owned());
    }
    notes.join("; ")
}
