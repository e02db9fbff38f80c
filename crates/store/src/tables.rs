//! Table definitions, and reading rows from them.

use redb::{AccessGuard, ReadableTable, TableDefinition};

use crate::error::{StoreError, printable};
use crate::key_entry::KeyEntry;
use crate::state::{State, StateError};
use crate::vector_key::VECTOR_KEY_BYTES;
use crate::{DocId, Document, NameTarget, record};

/// The value type of most tables.
pub(crate) type Bytes = &'static [u8];

/// Row 0 is the [`State`].
pub(crate) const META: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("meta");
/// Maps a key to its [`KeyEntry`].
pub(crate) const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
/// Maps a document number to the document's record.
pub(crate) const DOCUMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("documents");
/// Maps the lowest [`crate::VectorKey`] of a block to the [`crate::block::Block`].
pub(crate) const VECTORS: TableDefinition<'_, &[u8; VECTOR_KEY_BYTES], &[u8]> =
    TableDefinition::new("vectors");
/// Maps a sequence number to a [`crate::Change`].
pub(crate) const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
/// Maps (expiry in Unix milliseconds, document number) to the checksum of the two.
pub(crate) const EXPIRIES: TableDefinition<'_, (u64, u64), u32> = TableDefinition::new("expiries");
/// Maps (collection, version) to a schema.
pub(crate) const SCHEMAS: TableDefinition<'_, (u32, u32), &[u8]> = TableDefinition::new("schemas");
/// Maps a name to a [`crate::NameTarget`].
pub(crate) const NAMES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("names");
/// Maps the last sequence number before a history to the [`crate::HistoryId`]. Format 1 has no such table.
pub(crate) const HISTORIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("histories");

pub(crate) const STATE_ROW: u8 = 0;

pub(crate) fn corrupt(table: &'static str, key: impl Into<String>, reason: &'static str) -> StoreError {
    StoreError::Corrupt { table, key: key.into(), reason }
}

pub(crate) fn state_row<'t>(
    meta: &'t impl ReadableTable<u8, &'static [u8]>,
) -> Result<Option<AccessGuard<'t, &'static [u8]>>, redb::StorageError> {
    meta.get(STATE_ROW)
}

/// Reads the state of an open store.
pub(crate) fn state(meta: &impl ReadableTable<u8, &'static [u8]>) -> Result<State, StoreError> {
    let row = state_row(meta)?.ok_or_else(|| corrupt("meta", "state", "the row is missing"))?;
    State::decode(row.value()).map_err(|unreadable| {
        let reason = match unreadable {
            StateError::NewerFormat { .. } | StateError::UnknownFeatures { .. } => {
                "the format changed while the store was open"
            }
            StateError::Corrupt { reason } => reason,
        };
        corrupt("meta", "state", reason)
    })
}

/// Whether a name's target exists: for a collection its schema, for an alias the collection's name.
pub(crate) fn target_exists(
    schemas: &impl ReadableTable<(u32, u32), &'static [u8]>,
    names: &impl ReadableTable<&'static [u8], &'static [u8]>,
    target: &NameTarget,
) -> Result<bool, StoreError> {
    Ok(match target {
        NameTarget::Collection(collection) => schemas.get((collection.id, collection.version))?.is_some(),
        NameTarget::Alias(name) => names.get(name.as_bytes())?.is_some_and(|entry| {
            matches!(NameTarget::decode(name.as_bytes(), entry.value()), Ok((_, NameTarget::Collection(_))))
        }),
    })
}

pub(crate) fn key_entry(
    keys: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<KeyEntry>, StoreError> {
    let Some(entry) = keys.get(key)? else {
        return Ok(None);
    };
    KeyEntry::decode(key, entry.value()).map(Some).map_err(|reason| corrupt("keys", printable(key), reason))
}

pub(crate) fn document(
    documents: &impl ReadableTable<u64, &'static [u8]>,
    doc: DocId,
) -> Result<Option<Document>, StoreError> {
    let Some(record) = documents.get(doc.0)? else {
        return Ok(None);
    };
    record::decode(doc, record.value())
        .map(Some)
        .map_err(|reason| corrupt("documents", doc.0.to_string(), reason))
}

/// Gets the document stored under a key, and verifies that it has that key.
pub(crate) fn get(
    keys: &impl ReadableTable<&'static [u8], &'static [u8]>,
    documents: &impl ReadableTable<u64, &'static [u8]>,
    key: &[u8],
) -> Result<Option<(DocId, Document)>, StoreError> {
    let Some(KeyEntry { doc, .. }) = key_entry(keys, key)? else {
        return Ok(None);
    };
    let document = document(documents, doc)?
        .ok_or_else(|| corrupt("keys", printable(key), "its document does not exist"))?;
    if *document.key != *key {
        return Err(corrupt("keys", printable(key), "its document has another key"));
    }
    Ok(Some((doc, document)))
}
