//! Writing a store to a stream of bytes, and restoring a store from one.
//!
//! ```text
//! magic 8 bytes | frames ([`crate::FrameWriter`]) of three streams:
//!   format u32 | store 16 bytes | next doc u64 | next collection u32 | last seq u64 | features u32
//!   rows: documents, blocks of computed vectors, schemas, names, end marker
//!   counts, 4 x u64
//! ```
//!
//! Format 1 has no features. Numbers are little-endian. Each frame has a checksum over its number and its bytes, and each row has its own.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::builder::{Counters, RecordCounts, StoreBuilder};
use crate::cursor::Cursor;
use crate::frame::{FrameReader, FrameWriter};
use crate::panic::catch_panic;
use crate::primary_row::{PrimaryRow, VerifiedRow};
use crate::state::unknown_features;
use crate::{Options, Reader, Seq, Store, StoreError, error::OpenError};

pub(crate) const MAGIC: [u8; 8] = *b"NFBACKUP";
pub(crate) const FORMAT: u32 = 2;
/// The first format, without features.
const FORMAT_WITHOUT_FEATURES: u32 = 1;
const HEADER_BYTES: u64 = 4 + 16 + 8 + 4 + 8 + 4;

/// A summary of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Sequence number of the last change in it.
    pub last_seq: Seq,
    /// The number of records of each kind.
    pub counts: RecordCounts,
}

/// Why a backup could not be created, verified or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The backup could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not a backup.
    #[error("it is not a Nearfield backup")]
    NotABackup,
    /// The backup was created by a newer version.
    #[error(
        "it was written by a newer version of Nearfield, format {found}; this program reads up to {FORMAT}: upgrade Nearfield to use it"
    )]
    NewerFormat {
        /// Format of the backup.
        found: u32,
    },
    /// The backup has content that only a newer version can read.
    #[error(
        "it was written by a newer version of Nearfield, with features that this program does not know (bits {features:#x}): upgrade Nearfield to use it"
    )]
    UnknownFeatures {
        /// The unknown features.
        features: u32,
    },
    /// The frames are intact, but their content is inconsistent.
    #[error("it is damaged: {reason}")]
    Damaged {
        /// What is inconsistent.
        reason: String,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new store could not be created.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Reader {
    /// Writes this snapshot to `out`. The store accepts writes meanwhile; the pages they replace stay on the
    /// disk until the backup ends.
    ///
    /// Fails on a row with a wrong checksum or a dangling reference, so that every backup can be restored.
    pub fn back_up(&self, mut out: impl Write) -> Result<Backup, BackupError> {
        let state = self.state()?;
        out.write_all(&MAGIC)?;
        let mut frames = FrameWriter::new(out);
        frames.write_all(&FORMAT.to_le_bytes())?;
        frames.write_all(&state.id)?;
        frames.write_all(&state.next_doc.to_le_bytes())?;
        frames.write_all(&state.next_collection.to_le_bytes())?;
        frames.write_all(&state.last_seq.to_le_bytes())?;
        frames.write_all(&state.features.to_le_bytes())?;
        frames.end_stream()?;
        let mut counts = RecordCounts::default();
        self.scan_rows(|row| -> Result<(), BackupError> {
            let row = row?;
            let verified = row.verify()?;
            catch_panic(|| self.check_target(&verified))?;
            counts.add(&verified);
            Ok(row.write(&mut frames)?)
        })?;
        PrimaryRow::write_end(&mut frames)?;
        frames.end_stream()?;
        for count in counts.to_array() {
            frames.write_all(&count.to_le_bytes())?;
        }
        frames.end_stream()?;
        frames.into_inner().flush()?;
        Ok(Backup { last_seq: state.last_seq, counts })
    }
}

impl Backup {
    /// Reads and verifies a complete backup.
    pub fn verify(input: impl Read) -> Result<Backup, BackupError> {
        read(input, |_, _| Ok(())).map(|(_, backup)| backup)
    }

    /// The id of the store that a backup was made of, from the beginning of the backup.
    pub fn store_id(mut input: impl Read) -> Result<[u8; 16], BackupError> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(BackupError::NotABackup);
        }
        let mut header = [0; 4 + 16];
        FrameReader::new(input, MAGIC.len() as u64).read_exact(&mut header)?;
        Ok(header[4..].try_into().expect("what follows the format has 16 bytes"))
    }

    /// Creates a new store at `path` from a backup. The new store has its own identity, so data derived from the
    /// original store (graphs, snapshots) does not match it.
    pub fn restore(input: impl Read, path: &Path, options: Options) -> Result<Backup, BackupError> {
        let (_, backup) = Backup::restore_into(input, Store::open(path, options)?)?;
        Ok(backup)
    }

    /// Like [`Backup::restore`], but into `store`, which must be empty.
    pub(crate) fn restore_into(input: impl Read, store: Store) -> Result<(Store, Backup), BackupError> {
        let mut builder = StoreBuilder::new(store);
        let (counters, backup) = read(input, |row, verified| Ok(builder.add(row, verified)?))?;
        if let Some(damage) = builder.remove_orphans()?.damage.into_iter().next() {
            return Err(damage.into());
        }
        Ok((builder.finish(counters)?, backup))
    }
}

fn read(
    mut input: impl Read,
    mut visit: impl FnMut(&PrimaryRow, &VerifiedRow) -> Result<(), BackupError>,
) -> Result<(Counters, Backup), BackupError> {
    let mut magic = [0; MAGIC.len()];
    match input.read_exact(&mut magic) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(BackupError::NotABackup),
        read => read?,
    }
    if magic != MAGIC {
        return Err(BackupError::NotABackup);
    }
    let mut frames = FrameReader::new(input, MAGIC.len() as u64);
    let mut header = Vec::new();
    frames.by_ref().take(HEADER_BYTES).read_to_end(&mut header)?;
    let damaged = |reason: &str| BackupError::Damaged { reason: reason.to_owned() };
    let mut cursor = Cursor(&header);
    let format = cursor.u32().map_err(damaged)?;
    if format > FORMAT {
        return Err(BackupError::NewerFormat { found: format });
    }
    let mut counters = || {
        cursor.array::<16>()?;
        let counters =
            Counters { next_doc: cursor.u64()?, next_collection: cursor.u32()?, last_seq: cursor.u64()? };
        let features = if format > FORMAT_WITHOUT_FEATURES { cursor.u32()? } else { 0 };
        Ok((counters, features))
    };
    let (counters, features) = counters().map_err(damaged)?;
    if let Some(features) = unknown_features(features) {
        return Err(BackupError::UnknownFeatures { features });
    }
    if !counters.are_valid() {
        return Err(damaged("its next document or sequence number is out of range"));
    }
    frames.next_stream()?;
    let mut counts = RecordCounts::default();
    while let Some(row) = PrimaryRow::read(&mut frames)? {
        let verified = row.verify()?;
        if !counters.allow(&verified) {
            return Err(damaged("it contains a row whose number exceeds the counters in its header"));
        }
        counts.add(&verified);
        visit(&row, &verified)?;
    }
    frames.next_stream()?;
    let mut stored_counts = Vec::new();
    frames.by_ref().take(4 * 8).read_to_end(&mut stored_counts)?;
    frames.end()?;
    if stored_counts != counts.to_array().map(u64::to_le_bytes).concat() {
        return Err(damaged("its row counts do not match its content"));
    }
    Ok((counters, Backup { last_seq: counters.last_seq, counts }))
}
