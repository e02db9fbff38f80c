//! A backup of everything, while the rest goes on.

use std::io::{self, Write};

use tokio::sync::mpsc;

use crate::{Context, Error, Service, error_mapping, sync::Arc};

/// Bytes of a piece, and pieces on their way.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 4;

/// A backup as it is made. Dropped, it is broken off.
#[derive(Debug)]
pub struct BackupStream {
    pieces: mpsc::Receiver<Result<Vec<u8>, Error>>,
}

impl BackupStream {
    /// The next piece; `None` at the end. After an error nothing of it is of use.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, Error>> {
        self.pieces.recv().await
    }
}

impl Service {
    /// Begins a backup of the store as it stands now. One is made at a time; a Redis makes its own.
    pub async fn back_up(&self, cx: &Context) -> Result<BackupStream, Error> {
        let shared = self.shared().clone();
        shared.begin(cx)?;
        let store = shared.backend.backup_source()?;
        let turn = Arc::clone(&shared.backing_up).try_acquire_owned();
        let turn = turn.map_err(|_| {
            Error::new(
                super::ErrorKind::Overloaded,
                "backup-running",
                "another backup is being made: wait for its end",
            )
        })?;
        let (sender, pieces) = mpsc::channel(PIECES);
        // It waits for its reader most of the time; no worker should.
        let thread = std::thread::Builder::new().name("nearfield-backup".to_owned());
        let spawned = thread.spawn(move || {
            let mut out = Pieces { piece: Vec::with_capacity(PIECE_BYTES), sender };
            match store.back_up(&mut out) {
                Ok(backup) => tracing::info!(last_seq = backup.last_seq, "a backup was made"),
                // The reader has gone: there is nobody to tell.
                Err(_) if out.sender.is_closed() => tracing::warn!("a backup was broken off by its reader"),
                Err(error) => {
                    tracing::error!(%error, "a backup failed");
                    let _ = out.sender.blocking_send(Err(error));
                }
            }
            // Before its reader sees the end: who has read one may ask for the next.
            drop(turn);
            drop(out);
        });
        spawned.map_err(|error| error_mapping::thread(&error))?;
        Ok(BackupStream { pieces })
    }
}

/// What is written goes to the reader in pieces.
struct Pieces {
    piece: Vec<u8>,
    sender: mpsc::Sender<Result<Vec<u8>, Error>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        if piece.is_empty() { Ok(()) } else { self.sender.blocking_send(Ok(piece)).map_err(gone) }
    }
}
