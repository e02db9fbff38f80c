//! `nearfield backup`.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use serde_json::json;

use super::{
    client::{Client, ClientFlags},
    error::UsageError,
    exit::Exit,
    output_file::{Existing, OutputFile, OutputRules},
    session::Session,
    terminal::{self, thousands},
};
use service::Backup;

/// More than the part of a backup that tells its store.
const HEAD_BYTES: u64 = 4096;

/// Back up the whole store into one file while it is in use
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file contains every document, vector and collection at one point in time, and is readable by its owner only.
It is read back and verified before it gets its name. It may replace an earlier backup of the same store, and any other
file with --force. Pipes and devices are written to as they are.

With --json: {file, bytes, documents, vectors, last_seq, seconds}.

Examples:
  nearfield backup /backups/nearfield-monday
  nearfield restore /backups/nearfield-monday --data-dir /srv/nearfield")]
pub(crate) struct BackupArgs {
    /// File to write; it appears only when complete
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace an existing file that is not an earlier backup of the same store
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    client: ClientFlags,
}

impl BackupArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let settings = session.command_settings()?;
        let earlier = store_of_backup(&self.file);
        let existing = Existing::replace_if(self.force || earlier.is_some());
        let rules = OutputRules { data_dirs: &[&settings.server.service.data_dir], inputs: &[], existing };
        let file = OutputFile::new(&self.file, rules)?;
        let client = Client::open(&settings, &self.client)?;
        let write = |out: &mut dyn Write| {
            let mut counting = CountingWriter { out, bytes: 0 };
            client.download("/backup", &mut counting)?;
            counting.flush()?;
            Ok(counting.bytes)
        };
        let verify = |written: &mut dyn Read| {
            let mut head = Vec::new();
            written.take(HEAD_BYTES).read_to_end(&mut head)?;
            if !self.force && earlier.is_some_and(|earlier| Backup::store_id(&*head).ok() != Some(earlier)) {
                let file = self.file.display();
                return Err(UsageError(format!(
                    "{file} is a backup of another store: choose another name, or replace it with --force"
                ))
                .into());
            }
            verify_backup(head.chain(written), &self.file)
        };
        let (bytes, backup) = file.write_verified(write, verify)?;
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

/// Reads a backup to its end and checks it; `path` is for messages.
pub(super) fn verify_backup(backup: impl Read, path: &Path) -> anyhow::Result<Backup> {
    Backup::verify(backup).with_context(|| format!("the backup {}", path.display()))
}

/// The id of the store that the file is a backup of, if it is one.
fn store_of_backup(path: &Path) -> Option<[u8; 16]> {
    // Opening a pipe would wait for its other end.
    let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
    is_file.then(|| Backup::store_id(File::open(path).ok()?).ok()).flatten()
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
