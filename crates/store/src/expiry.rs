//! Encoding of expiries.

use crate::DocId;
use crate::checksum;
use crate::cursor::Cursor;
use crate::error::StoreError;
use crate::tables;

/// Appends an optional expiry: a flag byte and, if the flag is 1, Unix milliseconds.
pub(crate) fn encode(entry: &mut Vec<u8>, expires_at_ms: Option<u64>) {
    entry.push(u8::from(expires_at_ms.is_some()));
    if let Some(at) = expires_at_ms {
        entry.extend_from_slice(&at.to_le_bytes());
    }
}

pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Option<u64>, &'static str> {
    match cursor.u8()? {
        0 => Ok(None),
        1 => cursor.u64().map(Some),
        _ => Err("unknown expiry flag"),
    }
}

/// The value of a row in the `expiries` table: a checksum of its key, which contains all the data.
pub(crate) fn checksum(at_ms: u64, doc: DocId) -> u32 {
    checksum::checksum(&at_ms.to_le_bytes(), &doc.0.to_le_bytes())
}

/// The error for a damaged row of the `expiries` table.
pub(crate) fn corrupt(at_ms: u64, doc: DocId, reason: &'static str) -> StoreError {
    tables::corrupt("expiries", format!("{at_ms}, {}", doc.0), reason)
}
