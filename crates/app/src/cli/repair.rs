//! `nearfield repair`.

use serde_json::json;

use super::{check::describe_damage, exit::Exit, session::Session, terminal::thousands};

/// Make a new store of everything in a damaged one that can be reached and read
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Says what was lost, row by row, or how many rows of a table where pages of it cannot be read, and keeps the damaged
store beside the new one. What belongs to something that was lost goes with it: names of a collection without schema,
computed vectors of a document. No server may have the directory open.
Vectors that were lost are computed again when the store is served. A store that cannot be opened at all has to be
restored from a backup.

With --json: {lost, unlisted, lost_rows, documents, vectors, kept}.")]
pub(crate) struct RepairArgs {}

impl RepairArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let directory = service::lock(&session.command_settings()?.service())?;
        let (findings, kept) = directory.repair()?;
        let (lost, counts, terminal) = (describe_damage(&findings), findings.counts, session.terminal);
        if terminal.json {
            terminal.json(&json!({
                "lost": lost, "unlisted": findings.unlisted, "lost_rows": findings.lost,
                "documents": counts.documents, "vectors": counts.vectors, "kept": kept,
            }))?;
            return Ok(Exit::Done);
        }
        for lost in &lost {
            terminal.line(format_args!("lost: {lost}"))?;
        }
        if findings.unlisted > 0 {
            terminal.line(format_args!("and {} more", thousands(findings.unlisted)))?;
        }
        terminal.line(format_args!(
            "saved {} documents and {} computed vectors, lost {} rows",
            thousands(counts.documents),
            thousands(counts.vectors),
            thousands(findings.lost)
        ))?;
        terminal.note(format_args!(
            "the damaged store is {}: remove it when you trust the new one",
            kept.display()
        ));
        Ok(Exit::Done)
    }
}
