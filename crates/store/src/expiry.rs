//! When a document ends.

use crate::DocId;
use crate::cursor::Cursor;
use crate::error::StoreError;
use crate::seal::checksum;
use crate::tables;

/// Optional Unix milliseconds: a flag byte, then the value when the flag is 1.
pub(crate) fn put(entry: &mut Vec<u8>, expires_at_ms: Option<u64>) {
    entry.push(u8::from(expires_at_ms.is_some()));
    if let Some(at) = expires_at_ms {
        entry.extend_from_slice(&at.to_le_bytes());
    }
}

pub(crate) fn take(cursor: &mut Cursor<'_>) -> Result<Option<u64>, &'static str> {
    match cursor.u8()? {
        0 => Ok(None),
        1 => cursor.u64().map(Some),
        _ => Err("unknown flag before the expiry"),
    }
}

/// What the row of an expiry holds: its key has nothing else to prove itself by.
pub(crate) fn row(at_ms: u64, doc: DocId) -> u32 {
    checksum(&at_ms.to_le_bytes(), &doc.0.to_le_bytes())
}

/// What is wrong with the entry of an expiry.
pub(crate) fn corrupt(at_ms: u64, doc: DocId, reason: &'static str) -> StoreError {
    tables::corrupt("expiries", format!("{at_ms}, {}", doc.0), reason)
}
