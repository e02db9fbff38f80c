//! Snapshots of collections, so that an engine opens quickly. They are derived data: a snapshot that does not match
//! its store is discarded.
//!
//! Each collection version has one file, `snapshots/<id>-<version>.snapshot`. Eight magic bytes are followed by
//! streams of checksummed frames: a header (format, store, collection version, schema, analyzers, the change up to
//! which everything is included), each index in the order of the schema, the documents, and a trailer (the last change
//! of which anything may be included, and the history of the store that it belongs to).
//!
//! Format 1 has neither analyzers nor a trailer, and no passages.

mod documents;

use std::{
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write},
    sync::{Arc, atomic::Ordering},
};

use index::{Cpu, Index};
use store::{CollectionVersion, FrameReader, FrameWriter, HistoryId, Seq, StoreError};

use crate::{
    binary::{ByteReader, DecodeError, write_bytes},
    collection::{Collection, CollectionState, index_options},
    file_storage::FileStorage,
    projection::Projector,
    schema::{FieldKind, FieldSchema, Schema, encode},
};

pub(crate) const MAGIC: [u8; 8] = *b"NFSNAPSH";
const FORMAT: u32 = 2;
/// The first format, which does not say from which history of the store a snapshot was derived.
const FORMAT_WITHOUT_HISTORY: u32 = 1;
/// Suffix of a file that is being written.
const UNFINISHED: &str = ".unfinished";
const BUFFER_BYTES: usize = 1 << 20;
/// Longest header: a schema and a few numbers.
const HEADER_BYTES_MAX: u64 = 2 << 20;

/// A snapshot that was read.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// As of the change [`CollectionState::published`](crate::collection::CollectionState::published), with parts of later ones.
    pub(crate) collection: Collection,
    /// The last change that may be included in part, and its history; unknown in the first format.
    pub(crate) last_change: Option<(HistoryId, Seq)>,
    /// Whether the values were derived by the analyzers of this program.
    pub(crate) has_current_analyzers: bool,
}

/// The snapshots of one store.
#[derive(Debug)]
pub(crate) struct Snapshots {
    storage: Arc<dyn FileStorage>,
    store: [u8; 16],
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Decode(#[from] DecodeError),
    #[error("it is damaged: {0}")]
    Index(#[from] index::LoadError),
    #[error("{0}")]
    Other(&'static str),
}

impl Snapshots {
    /// The snapshots in `storage`. Removes unfinished files.
    pub(crate) fn open(storage: Arc<dyn FileStorage>, store: [u8; 16]) -> io::Result<Snapshots> {
        let snapshots = Snapshots::unchanged(storage, store);
        snapshots.remove_files(Snapshots::is_unfinished)?;
        Ok(snapshots)
    }

    /// The snapshots in `storage`, to read them. Changes nothing.
    pub(crate) fn unchanged(storage: Arc<dyn FileStorage>, store: [u8; 16]) -> Snapshots {
        Snapshots { storage, store }
    }

    /// Whether this is the name of a file that is being written, or that an interrupted process left.
    pub(crate) fn is_unfinished(name: &str) -> bool {
        name.ends_with(UNFINISHED)
    }

    /// File name of a collection version's snapshot.
    pub(crate) fn file_name(version: CollectionVersion) -> String {
        format!("{:06}-{:06}.snapshot", version.id, version.version)
    }

    /// Whether this is the name of a finished snapshot.
    pub(crate) fn is_file_name(name: &str) -> bool {
        name.ends_with(".snapshot")
    }

    /// Writes a snapshot durably, replacing the previous one, and returns the last change it includes. Reads and
    /// writes continue meanwhile.
    ///
    /// The snapshot may contain later changes. So `sync` makes the store durable after everything is written and
    /// before the file gets its name: a store that lost changes reuses their sequence numbers, and the snapshot would
    /// contain something else under these numbers. `sync` returns the last change that it made durable.
    pub(crate) fn write(
        &self,
        collection: &Collection,
        sync: impl FnOnce() -> Result<(HistoryId, Seq), StoreError>,
    ) -> io::Result<Seq> {
        // Read first: all changes from here on are applied again from the store.
        let seq = collection.state().published;
        let unsaved = collection.unsaved_changes.load(Ordering::Relaxed);
        let name = Snapshots::file_name(collection.version);
        let unfinished = format!("{name}{UNFINISHED}");
        let written = self.write_to(&unfinished, collection, seq, sync);
        if let Err(error) = written.and_then(|()| self.storage.rename(&unfinished, &name)) {
            // The unfinished file may occupy the space that was missing. If it cannot be removed now, it is removed
            // when the store is next opened.
            let _ = self.storage.remove(&unfinished);
            return Err(error);
        }
        self.storage.sync()?;
        collection.set_snapshot_seq(seq);
        collection.unsaved_changes.fetch_sub(unsaved, Ordering::Relaxed);
        Ok(seq)
    }

    fn write_to(
        &self,
        name: &str,
        collection: &Collection,
        seq: Seq,
        sync: impl FnOnce() -> Result<(HistoryId, Seq), StoreError>,
    ) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, self.storage.create(name)?);
        file.write_all(&MAGIC)?;
        let mut frames = FrameWriter::new(file);
        frames.write_all(&self.header(collection.version, &collection.schema, seq))?;
        frames.end_stream()?;
        for index in &collection.indexes {
            index.save(&mut frames)?;
            frames.end_stream()?;
        }
        // After the indexes, so that an ordinal which is free by now has no valid vector.
        documents::write(collection, &mut frames)?;
        frames.end_stream()?;
        let (history, last) = sync().map_err(io::Error::other)?;
        frames.write_all(&trailer(history, last))?;
        frames.end_stream()?;
        let mut file = frames.into_inner().into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync()
    }

    pub(crate) fn header(&self, version: CollectionVersion, schema: &Schema, seq: Seq) -> Vec<u8> {
        let mut header = FORMAT.to_le_bytes().to_vec();
        header.extend_from_slice(&self.store);
        header.extend_from_slice(&version.id.to_le_bytes());
        header.extend_from_slice(&version.version.to_le_bytes());
        write_bytes(&mut header, &encode(schema));
        write_bytes(&mut header, analyzers(schema).as_bytes());
        header.extend_from_slice(&seq.to_le_bytes());
        header
    }

    /// Loads a snapshot; `None` if there is none. Whether it belongs to the store's history is for the caller to
    /// verify.
    pub(crate) fn read(
        &self,
        version: CollectionVersion,
        schema: &Arc<Schema>,
        cpu: Cpu,
    ) -> Result<Option<Snapshot>, SnapshotError> {
        let mut file = match self.storage.open(&Snapshots::file_name(version)) {
            Ok(file) => BufReader::with_capacity(BUFFER_BYTES, file),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(SnapshotError::Other("it is not a snapshot"));
        }
        let mut frames = FrameReader::new(file, MAGIC.len() as u64);
        let Header { format, seq, has_current_analyzers } =
            self.check_header(&mut frames, version, schema)?;
        let mut indexes = Vec::new();
        for field in Projector::new(schema).vectors {
            frames.next_stream()?;
            indexes.push(Index::load(&mut frames, index_options(&field.schema), cpu)?);
        }
        frames.next_stream()?;
        let mut bytes = Vec::new();
        frames.read_to_end(&mut bytes)?;
        let last_change = if format > FORMAT_WITHOUT_HISTORY {
            frames.next_stream()?;
            let mut trailer = Vec::new();
            frames.read_to_end(&mut trailer)?;
            Some(read_trailer(&trailer)?)
        } else {
            None
        };
        frames.end()?;
        let mut state = documents::read(&bytes, schema)?;
        state.published = seq;
        remove_stale_vectors(&indexes, &state);
        let collection = Collection::from_parts(version, schema.clone(), indexes, state);
        collection.set_snapshot_seq(seq);
        Ok(Some(Snapshot { collection, last_change, has_current_analyzers }))
    }

    fn check_header(
        &self,
        frames: &mut FrameReader<impl Read>,
        version: CollectionVersion,
        schema: &Schema,
    ) -> Result<Header, SnapshotError> {
        let mut header = Vec::new();
        frames.by_ref().take(HEADER_BYTES_MAX).read_to_end(&mut header)?;
        let mut input = ByteReader::new(&header);
        let format = input.u32()?;
        if !(FORMAT_WITHOUT_HISTORY..=FORMAT).contains(&format) {
            return Err(SnapshotError::Other("it has a different format"));
        }
        if input.take(16)? != self.store {
            return Err(SnapshotError::Other("it belongs to another store"));
        }
        if (CollectionVersion { id: input.u32()?, version: input.u32()? }) != version {
            return Err(SnapshotError::Other("it belongs to another collection"));
        }
        if input.bytes()? != encode(schema) {
            return Err(SnapshotError::Other("it has a different schema"));
        }
        let has_current_analyzers =
            format > FORMAT_WITHOUT_HISTORY && input.bytes()? == analyzers(schema).as_bytes();
        let seq = input.u64()?;
        input.end()?;
        Ok(Header { format, seq, has_current_analyzers })
    }

    /// Durably removes the snapshot of a collection version.
    pub(crate) fn remove_durably(&self, version: CollectionVersion) -> io::Result<()> {
        self.remove(version)?;
        self.storage.sync()
    }

    /// Removes the snapshot of a collection version, if there is one.
    pub(crate) fn remove(&self, version: CollectionVersion) -> io::Result<()> {
        match self.storage.remove(&Snapshots::file_name(version)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes every snapshot except those of these versions.
    pub(crate) fn retain(&self, versions: &[CollectionVersion]) -> io::Result<()> {
        let kept: Vec<String> = versions.iter().map(|version| Snapshots::file_name(*version)).collect();
        self.remove_files(|name| Snapshots::is_file_name(name) && !kept.iter().any(|kept| kept == name))
    }

    fn remove_files(&self, matches: impl Fn(&str) -> bool) -> io::Result<()> {
        for name in self.storage.names()?.iter().filter(|name| matches(name)) {
            self.storage.remove(name)?;
        }
        Ok(())
    }
}

/// What the header of a snapshot says, apart from what was checked.
struct Header {
    format: u32,
    seq: Seq,
    has_current_analyzers: bool,
}

/// The versions of everything that derives values in a snapshot from documents, and may change in a later version of
/// this program; empty if there is nothing of the kind.
fn analyzers(schema: &Schema) -> String {
    let folds = |field: &FieldSchema| matches!(field.kind, FieldKind::Tag { case_sensitive: false, .. });
    if schema.fields.iter().any(folds) {
        let (major, minor, update) = char::UNICODE_VERSION;
        format!("tags: Unicode {major}.{minor}.{update}")
    } else {
        String::new()
    }
}

pub(crate) fn trailer(history: HistoryId, last: Seq) -> Vec<u8> {
    [&history.0[..], &last.to_le_bytes()].concat()
}

fn read_trailer(trailer: &[u8]) -> Result<(HistoryId, Seq), DecodeError> {
    let mut input = ByteReader::new(trailer);
    let mut history = HistoryId([0; 16]);
    history.0.copy_from_slice(input.take(16)?);
    let last = input.u64()?;
    input.end()?;
    Ok((history, last))
}

/// Removes vectors whose label was freed, or given to a passage of another field, after the index and before the
/// documents were written. A label that was given to a document is not concerned: the document is among the changes
/// that are applied next.
fn remove_stale_vectors(indexes: &[Index], state: &CollectionState) {
    let live = state.ordinals.live();
    for label in (0..state.ordinals.len()).filter(|label| !live.contains(*label)) {
        let owner = state.passages.get(label).map(|(key, _)| key.slot);
        for (slot, index) in indexes.iter().enumerate() {
            if owner != Some(slot) {
                index.remove(label);
            }
        }
    }
}

#[cfg(test)]
mod tests;
