//! Online backup of the embedded store.

use std::{
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::sync::mpsc;

use crate::{Context, Error, Service, call, error_mapping, sync::Arc};

/// Size of a chunk in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Maximum number of buffered chunks.
const BUFFERED_CHUNKS: usize = 4;

/// A running backup. Dropping it aborts the backup.
#[derive(Debug)]
pub struct BackupStream {
    chunks: mpsc::Receiver<Result<Vec<u8>, Error>>,
}

impl BackupStream {
    /// The next chunk; `None` at the end. After an error the chunks received so far are not a valid
    /// backup.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        self.chunks.recv().await
    }
}

impl Service {
    /// Starts a backup of the current state of the store. Only one backup can run at a time. Not
    /// available with Redis, which has its own backups.
    pub async fn back_up(&self, cx: &Context) -> Result<BackupStream, Error> {
        let shared = self.shared().clone();
        shared.begin(cx)?;
        let store = shared.backend.backup_source()?;
        let permit = Arc::clone(&shared.backing_up).try_acquire_owned();
        let permit = permit.map_err(|_| {
            Error::new(
                super::ErrorKind::Overloaded,
                "backup-running",
                "another backup is running; wait until it has finished",
            )
        })?;
        let (sender, chunks) = mpsc::channel(BUFFERED_CHUNKS);
        // A separate thread, because it waits for the reader most of the time.
        let thread = std::thread::Builder::new().name("nearfield-backup".to_owned());
        let spawned = thread.spawn(move || {
            let mut out = ChunkWriter { chunk: Vec::with_capacity(CHUNK_BYTES), sender };
            // A panic must not look like the end of a complete backup.
            let backed_up = catch_unwind(AssertUnwindSafe(|| store.back_up(&mut out)));
            match backed_up.unwrap_or_else(|_| Err(call::panicked())) {
                Ok(backup) => tracing::info!(last_seq = backup.last_seq, "backup completed"),
                Err(_) if out.sender.is_closed() => tracing::warn!("backup aborted: its reader disconnected"),
                Err(error) => {
                    tracing::error!(%error, "backup failed");
                    let _ = out.sender.blocking_send(Err(error));
                }
            }
            // Released before the reader sees the end, so that it can start the next backup at once.
            drop(permit);
            drop(out);
        });
        spawned.map_err(|error| error_mapping::thread(&error))?;
        Ok(BackupStream { chunks })
    }
}

/// Sends the bytes written to it to the reader, in chunks.
struct ChunkWriter {
    chunk: Vec<u8>,
    sender: mpsc::Sender<Result<Vec<u8>, Error>>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let broken_pipe = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        if chunk.is_empty() { Ok(()) } else { self.sender.blocking_send(Ok(chunk)).map_err(broken_pipe) }
    }
}
