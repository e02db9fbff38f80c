//! The store's state row: format, identity and counters.

use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::Cursor;
use crate::{DocId, Seq, StoreError};

/// Format version of all tables. A newer version of Nearfield created a file with a higher one.
pub(crate) const FORMAT: u32 = 1;

/// `format u32 | id 16 bytes | next doc u64 | next collection u32 | last seq u64 | trimmed to u64 | CRC-32`,
/// little-endian. Every format version starts with the format, so that any version can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) id: [u8; 16],
    pub(crate) next_doc: u64,
    pub(crate) next_collection: u32,
    pub(crate) last_seq: Seq,
    pub(crate) trimmed_to: Seq,
}

/// Why the state row cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateError {
    NewerFormat { format: u32 },
    Corrupt { reason: &'static str },
}

/// Takes the place of a key in the checksum of the state row.
pub(crate) const CHECKSUM_KEY: &[u8] = b"nearfield store";

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
        append_checksum(CHECKSUM_KEY, &mut row);
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<State, StateError> {
        let corrupt = |reason| StateError::Corrupt { reason };
        let format = Cursor(row).u32().map_err(corrupt)?;
        if format > FORMAT {
            return Err(StateError::NewerFormat { format });
        }
        let read = || {
            let mut cursor = Cursor(strip_checksum(CHECKSUM_KEY, row)?);
            if cursor.u32()? != FORMAT {
                return Err("unknown store format");
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

    /// Assigns the next sequence number.
    pub(crate) fn next_seq(&mut self) -> Result<Seq, StoreError> {
        self.last_seq = self.last_seq.checked_add(1).ok_or(StoreError::IdsExhausted)?;
        Ok(self.last_seq)
    }

    /// Assigns the next document number.
    pub(crate) fn allocate_doc(&mut self) -> Result<DocId, StoreError> {
        let doc = DocId(self.next_doc);
        self.next_doc = self.next_doc.checked_add(1).ok_or(StoreError::IdsExhausted)?;
        Ok(doc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhausted_counters_are_errors_and_do_not_wrap() {
        let last = State { next_doc: u64::MAX, last_seq: u64::MAX, ..State::new([0; 16]) };
        let mut state = last;
        assert!(matches!(state.next_seq(), Err(StoreError::IdsExhausted)));
        assert!(matches!(state.allocate_doc(), Err(StoreError::IdsExhausted)));
        assert_eq!(state, last);
    }
}
