//! `nearfield restore`.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use serde_json::json;

use super::{error::UsageError, exit::Exit, session::Session, terminal::thousands};
use service::DataDir;

/// Create the data directory from a backup
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The store is replaced atomically after the whole backup has been read and verified. No server may be using the
directory. The backup contains the vectors, so nothing is embedded again; graphs are rebuilt when the store is opened.

Examples:
  nearfield restore /backups/nearfield-monday --data-dir /srv/nearfield
  nearfield restore /backups/nearfield-monday --replace")]
pub(crate) struct RestoreArgs {
    /// Backup to restore
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a store that has documents; the old store is kept next to the new one
    #[arg(long)]
    replace: bool,
}

impl RestoreArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let file = File::open(&self.file).with_context(|| self.file.display().to_string())?;
        let directory = service::lock(&session.command_settings()?.service())?;
        check_places(&self.file, &directory)?;
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
                    "the previous store was kept as {}; remove it once you have verified the new one",
                    kept.display()
                ));
            }
        }
        Ok(Exit::Done)
    }
}

/// Rejects what the restored store would take the place of although it is no store, and a backup that would be removed
/// with what is derived from the old store.
fn check_places(backup: &Path, directory: &DataDir) -> anyhow::Result<()> {
    let store = directory.store_file();
    if fs::symlink_metadata(&store).is_ok_and(|found| !found.is_file()) {
        let text = format!(
            "{} is a symbolic link, or no file at all, and would be replaced: restore into the directory that it leads \
             to, or remove it first",
            store.display()
        );
        return Err(UsageError(text).into());
    }
    let inside =
        |path: &Path| Some(path.canonicalize().ok()?.starts_with(store.parent()?.canonicalize().ok()?));
    if inside(backup) == Some(true) {
        let text = format!("{} is in the data directory: move it somewhere else first", backup.display());
        return Err(UsageError(text).into());
    }
    Ok(())
}
