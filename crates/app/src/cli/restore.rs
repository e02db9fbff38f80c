//! `nearfield restore`.

use std::{fs::File, io::BufReader, path::PathBuf, time::Instant};

use anyhow::Context as _;
use serde_json::json;

use super::{exit::Exit, session::Session, terminal::thousands};

/// Make the data directory from a backup
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The directory gets the new store when all of the backup was read and verified, at once or not at all. No server may
have it open. Vectors are in the backup: nothing is embedded again; graphs are linked when the store is opened.

Examples:
  nearfield restore /backups/nearfield-monday --data-dir /srv/nearfield
  nearfield restore /backups/nearfield-monday --replace")]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace documents that stand in the directory; the store they are in is kept beside the new one
    #[arg(long)]
    replace: bool,
}

impl RestoreArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let file = File::open(&self.file).with_context(|| self.file.display().to_string())?;
        let directory = service::lock(&session.command_settings()?.service())?;
        let restored = directory.restore(BufReader::new(file), self.replace);
        let (backup, kept) = restored.with_context(|| self.file.display().to_string())?;
        let seconds = started.elapsed().as_secs_f64();
        let terminal = session.terminal;
        if terminal.json {
            terminal.json(&json!({
                "documents": backup.counts.documents, "vectors": backup.counts.vectors,
                "last_seq": backup.last_seq, "kept": kept, "seconds": seconds,
            }))?;
        } else {
            terminal.line(format_args!(
                "restored {} documents and {} computed vectors, up to change {}, in {seconds:.1} s",
                thousands(backup.counts.documents),
                thousands(backup.counts.vectors),
                backup.last_seq
            ))?;
            if let Some(kept) = kept {
                terminal.note(format_args!(
                    "the store from before is {}: remove it when you trust the new one",
                    kept.display()
                ));
            }
        }
        Ok(Exit::Done)
    }
}
