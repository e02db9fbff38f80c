//! `nearfield repair`.

use serde_json::json;

use super::{
    check::describe_damage, exit::Exit, quiet_panics::silence_redb_panics, session::Session,
    terminal::thousands,
};

/// Rebuild a damaged store from everything in it that is readable
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Lists every lost row, or the number of lost rows of a table with unreadable pages, and keeps the damaged store next
to the new one. Data that depends on a lost row is dropped, too: the names of a collection without a schema, the
computed vectors of a document. No server may be using the directory. Lost vectors are computed again when the store is
served. A store that cannot be opened at all must be restored from a backup.

With --json: {lost, unlisted, lost_rows, documents, vectors, kept}.")]
pub(crate) struct RepairArgs {}

impl RepairArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        silence_redb_panics();
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
            "the damaged store was kept as {}; remove it once you have verified the new one",
            kept.display()
        ));
        Ok(Exit::Done)
    }
}
