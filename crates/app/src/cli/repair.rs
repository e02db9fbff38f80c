//! `nearfield repair`.

use serde_json::json;

use super::{Session, check::damage, exit::Exit, terminal::thousands};
use crate::service;

/// Make a new store of everything that can be read in a damaged one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Says what was lost, row by row, and keeps the damaged store beside the new one. No server may have the directory open.
Vectors that were lost are computed again when the store is served. A store that cannot be opened at all has to be
restored from a backup.

With --json: {lost, unlisted, documents, vectors, kept}.")]
pub(crate) struct RepairArgs {}

impl RepairArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let directory = service::lock(&session.quiet_settings()?.service())?;
        let (findings, kept) = directory.repair()?;
        let (lost, counts, terminal) = (damage(&findings), findings.counts, session.terminal);
        if terminal.json {
            terminal.json(&json!({
                "lost": lost, "unlisted": findings.unlisted, "documents": counts.documents,
                "vectors": counts.vectors, "kept": kept,
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
            thousands(lost.len() as u64 + findings.unlisted)
        ))?;
        terminal.note(format_args!(
            "the damaged store is {}: remove it when you trust the new one",
            kept.display()
        ));
        Ok(Exit::Done)
    }
}
