//! The one row that counts: format, identity, and the next numbers to give.

use crate::cursor::Cursor;
use crate::seal::{seal, unseal};
use crate::{DocId, Seq, StoreError};

/// Version of the layout of all tables. A file with a higher one was made by a newer program.
pub(crate) const FORMAT: u32 = 1;

/// `format u32 | id 16 bytes | next doc u64 | next collection u32 | last seq u64 | trimmed to u64 | CRC-32`,
/// little-endian. The format comes first in every version, so that any program can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) id: [u8; 16],
    pub(crate) next_doc: u64,
    pub(crate) next_collection: u32,
    pub(crate) last_seq: Seq,
    pub(crate) trimmed_to: Seq,
}

/// Why there is no state to be had from a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    NewerFormat { format: u32 },
    Corrupt { reason: &'static str },
}

pub(crate) const PLACE: &[u8] = b"nearfield store";

impl State {
    pub(crate) fn new(id: [u8; 16]) -> State {
        State { id, next_doc: 1, next_collection: 1, last_seq: 0, trimmed_to: 0 }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(4 + 16 + 8 + 4 + 8 + 8 + 4);
        row.extend_from_slice(&FORMAT.to_le_bytes());
        row.extend_from_slice(&self.id);
        row.extend_from_slice(&self.next_doc.to_le_bytes());
        row.extend_from_slice(&self.next_collection.to_le_bytes());
        row.extend_from_slice(&self.last_seq.to_le_bytes());
        row.extend_from_slice(&self.trimmed_to.to_le_bytes());
        seal(PLACE, &mut row);
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<State, Unreadable> {
        let corrupt = |reason| Unreadable::Corrupt { reason };
        let format = Cursor(row).u32().map_err(corrupt)?;
        if format > FORMAT {
            return Err(Unreadable::NewerFormat { format });
        }
        let read = || {
            let mut cursor = Cursor(unseal(PLACE, row)?);
            if cursor.u32()? != FORMAT {
                return Err("unknown format of the store");
            }
            let state = State {
                id: cursor.array()?,
                next_doc: cursor.u64()?,
                next_collection: cursor.u32()?,
                last_seq: cursor.u64()?,
                trimmed_to: cursor.u64()?,
            };
            cursor.end()?;
            Ok(state)
        };
        read().map_err(corrupt)
    }

    /// The number of the next change.
    pub(crate) fn advance(&mut self) -> Result<Seq, StoreError> {
        self.last_seq = self.last_seq.checked_add(1).ok_or(StoreError::IdsExhausted)?;
        Ok(self.last_seq)
    }

    /// The number of the next new document.
    pub(crate) fn number_document(&mut self) -> Result<DocId, StoreError> {
        let doc = DocId(self.next_doc);
        self.next_doc = self.next_doc.checked_add(1).ok_or(StoreError::IdsExhausted)?;
        Ok(doc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice() {
        let last = State { next_doc: u64::MAX, last_seq: u64::MAX, ..State::new([0; 16]) };
        let mut state = last;
        assert!(matches!(state.advance(), Err(StoreError::IdsExhausted)));
        assert!(matches!(state.number_document(), Err(StoreError::IdsExhausted)));
        assert_eq!(state, last);
    }
}
