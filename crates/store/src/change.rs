//! The log of changes: the last change of every document, in order.

use crate::DocId;
use crate::cursor::Cursor;
use crate::seal::{seal, unseal};

/// Position of a change in the history of a store; grows by one with every changed document.
pub type Seq = u64;

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Written: read the document to see how it stands now.
    Written,
    /// Gone.
    Deleted,
}

/// The last change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, in the store's own order.
    pub seq: Seq,
    /// Which.
    pub doc: DocId,
    /// What.
    pub kind: ChangeKind,
}

impl Change {
    /// `doc u64 | kind u8 | CRC-32`, little-endian; the place is the sequence number.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut entry = Vec::with_capacity(8 + 1 + 4);
        entry.extend_from_slice(&self.doc.0.to_le_bytes());
        entry.push(match self.kind {
            ChangeKind::Written => 0,
            ChangeKind::Deleted => 1,
        });
        seal(&self.seq.to_le_bytes(), &mut entry);
        entry
    }

    pub(crate) fn decode(seq: Seq, entry: &[u8]) -> Result<Change, &'static str> {
        let mut cursor = Cursor(unseal(&seq.to_le_bytes(), entry)?);
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
