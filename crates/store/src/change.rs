//! The change log: the last change of every document, in sequence order.

use crate::DocId;
use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::Cursor;

/// Sequence number of a change. It increases by one with every changed document.
pub type Seq = u64;

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The document was written. Read the document for its current content.
    Written,
    /// The document was deleted.
    Deleted,
}

/// The last change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Sequence number of the change.
    pub seq: Seq,
    /// The changed document.
    pub doc: DocId,
    /// What happened to it.
    pub kind: ChangeKind,
}

impl Change {
    /// `doc u64 | kind u8 | CRC-32`, little-endian. The checksum covers the sequence number as key.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut entry = Vec::with_capacity(8 + 1 + 4);
        entry.extend_from_slice(&self.doc.0.to_le_bytes());
        entry.push(match self.kind {
            ChangeKind::Written => 0,
            ChangeKind::Deleted => 1,
        });
        append_checksum(&self.seq.to_le_bytes(), &mut entry);
        entry
    }

    pub(crate) fn decode(seq: Seq, entry: &[u8]) -> Result<Change, &'static str> {
        let mut cursor = Cursor(strip_checksum(&seq.to_le_bytes(), entry)?);
        let doc = DocId(cursor.u64()?);
        let kind = match cursor.u8()? {
            0 => ChangeKind::Written,
            1 => ChangeKind::Deleted,
            _ => return Err("unknown kind of change"),
        };
        cursor.end()?;
        Ok(Change { seq, doc, kind })
    }
}
