//! A whole store as a stream of bytes, and a store made of one.
//!
//! ```text
//! magic 8 bytes | frames ([`crate::FrameWriter`]) of three streams:
//!   format u32 | store 16 bytes | next doc u64 | next collection u32 | last seq u64
//!   items: documents, blocks of computed vectors, schemas, names, an end
//!   counts, 4 x u64
//! ```
//!
//! Numbers are little-endian. Each frame has a checksum over its number and its bytes, each row its own.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::contain::contain;
use crate::cursor::Cursor;
use crate::frame::{FrameReader, FrameWriter};
use crate::item::{Item, Verified};
use crate::rebuild::{Numbers, Rebuild, RecordCounts};
use crate::{Options, Reader, Seq, Store, StoreError, error::OpenError};

pub(crate) const MAGIC: [u8; 8] = *b"NFBACKUP";
pub(crate) const FORMAT: u32 = 1;
const HEADER_BYTES: u64 = 4 + 16 + 8 + 4 + 8;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The last change in it.
    pub last_seq: Seq,
    /// How much of what.
    pub counts: RecordCounts,
}

/// Why a backup could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no backup.
    #[error("it is not a backup made by Nearfield")]
    NotABackup,
    /// It was made by a newer version.
    #[error(
        "it was made by a newer version of Nearfield (format {found}; this version reads up to {FORMAT}): upgrade to use it"
    )]
    NewerFormat {
        /// Its format.
        found: u32,
    },
    /// Its frames are whole, and what they hold is not.
    #[error("it is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new store cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Reader {
    /// Writes all of this view to `out`. Writes to the store go on meanwhile; what they replace stays on the disk
    /// until the end.
    ///
    /// A row that does not match its checksum is an error, and so is one that leads nowhere: what is made here
    /// can be restored.
    pub fn back_up(&self, mut out: impl Write) -> Result<Backup, BackupError> {
        let state = self.state()?;
        out.write_all(&MAGIC)?;
        let mut frames = FrameWriter::new(out);
        frames.write_all(&FORMAT.to_le_bytes())?;
        frames.write_all(&state.id)?;
        frames.write_all(&state.next_doc.to_le_bytes())?;
        frames.write_all(&state.next_collection.to_le_bytes())?;
        frames.write_all(&state.last_seq.to_le_bytes())?;
        frames.end_stream()?;
        let mut counts = RecordCounts::default();
        self.each_item(|item| -> Result<(), BackupError> {
            let item = item?;
            let row = item.verify()?;
            contain(|| self.check_leads(&row))?;
            counts.add(&row);
            Ok(item.write(&mut frames)?)
        })?;
        Item::write_end(&mut frames)?;
        frames.end_stream()?;
        for count in counts.all() {
            frames.write_all(&count.to_le_bytes())?;
        }
        frames.end_stream()?;
        frames.into_inner().flush()?;
        Ok(Backup { last_seq: state.last_seq, counts })
    }
}

impl Backup {
    /// Reads a backup to its end and verifies all of it.
    pub fn verify(input: impl Read) -> Result<Backup, BackupError> {
        read(input, |_, _| Ok(())).map(|(_, backup)| backup)
    }

    /// Makes the store in `path`, where there is none, from a backup. The store is another one than that
    /// which was backed up: nothing that was derived from the one fits the other.
    pub fn restore(input: impl Read, path: &Path, options: Options) -> Result<Backup, BackupError> {
        let (_, backup) = Backup::restore_into(input, Store::open(path, options)?)?;
        Ok(backup)
    }

    /// [`Backup::restore`] into `store`, which is empty.
    pub(crate) fn restore_into(input: impl Read, store: Store) -> Result<(Store, Backup), BackupError> {
        let mut rebuild = Rebuild::begin(store);
        let (numbers, backup) = read(input, |item, row| Ok(rebuild.add(item, row)?))?;
        if let Some(damage) = rebuild.remove_loose()?.damage.into_iter().next() {
            return Err(damage.into());
        }
        Ok((rebuild.finish(numbers)?, backup))
    }
}

fn read(
    mut input: impl Read,
    mut take: impl FnMut(&Item, &Verified) -> Result<(), BackupError>,
) -> Result<(Numbers, Backup), BackupError> {
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
    let mut numbers = || {
        cursor.array::<16>()?;
        Ok(Numbers { next_doc: cursor.u64()?, next_collection: cursor.u32()?, last_seq: cursor.u64()? })
    };
    let numbers = numbers().map_err(damaged)?;
    if !numbers.are_possible() {
        return Err(damaged("its store says to have come to a number that none comes to"));
    }
    frames.next_stream()?;
    let mut counts = RecordCounts::default();
    while let Some(item) = Item::read(&mut frames)? {
        let row = item.verify()?;
        if !numbers.are_after(&row) {
            return Err(damaged("it holds a row with a number that was not given yet"));
        }
        counts.add(&row);
        take(&item, &row)?;
    }
    frames.next_stream()?;
    let mut told = Vec::new();
    frames.by_ref().take(4 * 8).read_to_end(&mut told)?;
    frames.end()?;
    if told != counts.all().map(u64::to_le_bytes).concat() {
        return Err(damaged("it holds another number of rows than it says"));
    }
    Ok((numbers, Backup { last_seq: numbers.last_seq, counts }))
}
