//! `nearfield backup`.

use std::{
    fs::File,
    io::{BufReader, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use serde_json::json;

use super::{
    atomic_file::{MODE_OWNER_ONLY, write_atomically},
    client::ClientFlags,
    exit::Exit,
    session::Session,
    terminal::{self, thousands},
};
use service::Backup;

/// Back up the whole store into one file while it is in use
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file contains every document, vector and collection at one point in time, and is readable by its owner only.
It is read back and verified before it gets its name.

With --json: {file, bytes, documents, vectors, last_seq, seconds}.

Examples:
  nearfield backup /backups/nearfield-monday
  nearfield restore /backups/nearfield-monday --data-dir /srv/nearfield")]
pub(crate) struct BackupArgs {
    /// File to write; it appears only when complete
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    client: ClientFlags,
}

impl BackupArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let client = session.connect(&self.client)?;
        let write = |out: &mut dyn Write| {
            let mut counting = CountingWriter { out, bytes: 0 };
            client.download("/backup", &mut counting)?;
            counting.flush()?;
            Ok(counting.bytes)
        };
        let (backup, bytes) = write_atomically(&self.file, MODE_OWNER_ONLY, write, |written, bytes| {
            Ok((verify_backup(written)?, bytes))
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let terminal = session.terminal;
        if terminal.json {
            terminal.json(&json!({
                "file": self.file, "bytes": bytes, "documents": backup.counts.documents,
                "vectors": backup.counts.vectors, "last_seq": backup.last_seq, "seconds": seconds,
            }))?;
        } else {
            terminal.line(format_args!(
                "backed up {} documents and {} computed vectors, {}, up to change {}, in {seconds:.1} s",
                thousands(backup.counts.documents),
                thousands(backup.counts.vectors),
                terminal::bytes(bytes),
                backup.last_seq
            ))?;
        }
        Ok(Exit::Done)
    }
}

/// Reads a backup to its end and checks it.
pub(super) fn verify_backup(path: &Path) -> anyhow::Result<Backup> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    Backup::verify(BufReader::new(file)).with_context(|| format!("the backup {}", path.display()))
}

struct CountingWriter<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for CountingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
