//! Values of the `keys` table. An entry contains what is needed to replace or delete a document
//! without reading it.

use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::Cursor;
use crate::expiry;
use crate::{DocId, Seq};

/// `doc u64 | changed u64 | expiry | CRC-32`, little-endian. The upper four bits of the expiry's flag are reserved for
/// the document's kind: 0 for a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    pub(crate) doc: DocId,
    /// Sequence number of the document's entry in the change log, unless the log was trimmed past it.
    pub(crate) changed: Seq,
    pub(crate) expires_at_ms: Option<u64>,
}

impl KeyEntry {
    pub(crate) fn encode(self, key: &[u8]) -> Vec<u8> {
        let mut entry = Vec::with_capacity(8 + 8 + 9 + 4);
        entry.extend_from_slice(&self.doc.0.to_le_bytes());
        entry.extend_from_slice(&self.changed.to_le_bytes());
        expiry::encode(&mut entry, self.expires_at_ms);
        append_checksum(key, &mut entry);
        entry
    }

    pub(crate) fn decode(key: &[u8], entry: &[u8]) -> Result<KeyEntry, &'static str> {
        let mut cursor = Cursor(strip_checksum(key, entry)?);
        let doc = DocId(cursor.u64()?);
        let changed = cursor.u64()?;
        let expires_at_ms = expiry::decode(&mut cursor)?;
        cursor.end()?;
        Ok(KeyEntry { doc, changed, expires_at_ms })
    }
}
