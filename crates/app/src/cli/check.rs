//! `nearfield check`.

use std::{fs::File, io::BufReader, path::PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::{
    backup::verify_backup,
    exit::{Exit, ignore_closed_output},
    quiet_panics::silence_redb_panics,
    session::Session,
    terminal::{Terminal, thousands},
};
use service::{self, CheckReport, DataDir, IntegrityReport};

/// Verify the data directory or a backup, and report damage
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Verifies every page and row of the store, the consistency of related rows, and every snapshot, which is compared with the
documents. Changes nothing, and needs no permission to write. No server may be using the directory. The exit code is 1 if anything is damaged. Damaged snapshots are rebuilt when the store is opened;
for a damaged store, see `nearfield repair` and `nearfield restore`.

Examples:
  nearfield check
  nearfield check /backups/nearfield-monday")]
pub(crate) struct CheckArgs {
    /// Backup to verify instead of the data directory
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl CheckArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let terminal = session.terminal;
        if let Some(file) = &self.file {
            let opened = File::open(file).with_context(|| file.display().to_string())?;
            let backup = verify_backup(BufReader::new(opened), file)?;
            let counts = backup.counts;
            if terminal.json {
                terminal.json(&json!({
                    "clean": true, "documents": counts.documents, "vectors": counts.vectors, "last_seq": backup.last_seq,
                }))?;
            } else {
                terminal.line(format_args!(
                    "the backup is complete: {} documents, {} computed vectors, up to change {}",
                    thousands(counts.documents),
                    thousands(counts.vectors),
                    backup.last_seq
                ))?;
            }
            return Ok(Exit::Done);
        }
        silence_redb_panics();
        let config = session.command_settings()?.service();
        let directory = service::lock_unchanged(&config)?;
        let checked = service::check(&directory, &config)?;
        ignore_closed_output(report(terminal, &directory, &checked))?;
        Ok(if checked.is_clean() { Exit::Done } else { Exit::Failed })
    }
}

fn report(terminal: Terminal, directory: &DataDir, checked: &CheckReport) -> anyhow::Result<()> {
    let counts = checked.store.counts;
    if terminal.json {
        let snapshots = checked.snapshots.iter();
        let snapshots: Vec<_> =
            snapshots.map(|(file, damage)| json!({"file": file, "damage": damage})).collect();
        terminal.json(&json!({
            "clean": checked.is_clean(), "store": directory.store_file(), "damage": describe_damage(&checked.store),
            "unlisted": checked.store.unlisted, "documents": counts.documents, "vectors": counts.vectors,
            "snapshots": snapshots,
        }))?;
        return Ok(());
    }
    for damage in describe_damage(&checked.store) {
        terminal.line(format_args!("{}: {damage}", directory.store_file().display()))?;
    }
    if checked.store.unlisted > 0 {
        terminal.line(format_args!("and {} more", thousands(checked.store.unlisted)))?;
    }
    for (file, damage) in &checked.snapshots {
        if let Some(damage) = damage {
            terminal.line(format_args!("snapshot {file}: {damage} (it will be rebuilt)"))?;
        }
    }
    terminal.line(format_args!(
        "{}: {} documents, {} computed vectors, {} snapshots",
        if checked.is_clean() { "nothing is damaged" } else { "damaged" },
        thousands(counts.documents),
        thousands(counts.vectors),
        checked.snapshots.len()
    ))?;
    Ok(())
}

/// The damage as text.
pub(super) fn describe_damage(findings: &IntegrityReport) -> Vec<String> {
    findings.damage.iter().map(ToString::to_string).collect()
}
