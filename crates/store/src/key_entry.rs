//! What stands under a key in the table of keys: enough to replace or delete the document
//! without reading it.

use crate::cursor::Cursor;
use crate::expiry;
use crate::seal::{seal, unseal};
use crate::{DocId, Seq};

/// `doc u64 | changed u64 | expiry | CRC-32`, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    pub(crate) doc: DocId,
    /// Where the document stands in the log of changes, unless it was trimmed.
    pub(crate) changed: Seq,
    pub(crate) expires_at_ms: Option<u64>,
}

impl KeyEntry {
    pub(crate) fn encode(self, key: &[u8]) -> Vec<u8> {
        let mut entry = Vec::with_capacity(8 + 8 + 9 + 4);
        entry.extend_from_slice(&self.doc.0.to_le_bytes());
        entry.extend_from_slice(&self.changed.to_le_bytes());
        expiry::put(&mut entry, self.expires_at_ms);
        seal(key, &mut entry);
        entry
    }

    pub(crate) fn decode(key: &[u8], entry: &[u8]) -> Result<KeyEntry, &'static str> {
        let mut cursor = Cursor(unseal(key, entry)?);
        let doc = DocId(cursor.u64()?);
        let changed = cursor.u64()?;
        let expires_at_ms = expiry::take(&mut cursor)?;
        cursor.end()?;
        Ok(KeyEntry { doc, changed, expires_at_ms })
    }
}
