//! The store's state row: format, identity, counters and history.

use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::Cursor;
use crate::{DocId, HistoryId, Seq, StoreError};

/// Format version of all tables. A newer version of Nearfield created a file with a higher one.
pub(crate) const FORMAT: u32 = 2;
/// The first format: no history, no features. It can be read; the first write converts it.
pub(crate) const FORMAT_WITHOUT_HISTORY: u32 = 1;

/// Bits of [`State::features`] that this program knows. A version that writes what earlier ones cannot read (another
/// kind of document, typed values, extended vectors) within the same format sets a bit in the same transaction.
const KNOWN_FEATURES: u32 = 0;

/// Format 1: `format u32 | id 16 bytes | next doc u64 | next collection u32 | last seq u64 | trimmed to u64 | CRC-32`,
/// little-endian. Format 2 has `features u32 | history 16 bytes` before the checksum. Every format version starts with
/// the format, so that any version can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Format of the row as stored. [`State::encode`] always writes [`FORMAT`].
    pub(crate) format: u32,
    pub(crate) id: [u8; 16],
    pub(crate) next_doc: u64,
    pub(crate) next_collection: u32,
    pub(crate) last_seq: Seq,
    pub(crate) trimmed_to: Seq,
    pub(crate) features: u32,
    /// The history that the last change belongs to. See [`crate::histories`].
    pub(crate) history: HistoryId,
}

/// Why the state row cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateError {
    NewerFormat { format: u32 },
    UnknownFeatures { features: u32 },
    Corrupt { reason: &'static str },
}

/// Takes the place of a key in the checksum of the state row.
pub(crate) const CHECKSUM_KEY: &[u8] = b"nearfield store";

/// The features in `bits` that this program does not know, if any.
pub(crate) fn unknown_features(bits: u32) -> Option<u32> {
    Some(bits & !KNOWN_FEATURES).filter(|unknown| *unknown != 0)
}

impl State {
    pub(crate) fn new(id: [u8; 16]) -> State {
        State {
            format: FORMAT,
            id,
            next_doc: 1,
            next_collection: 1,
            last_seq: 0,
            trimmed_to: 0,
            features: 0,
            history: HistoryId::NONE,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(4 + 16 + 8 + 4 + 8 + 8 + 4 + 16 + 4);
        row.extend_from_slice(&FORMAT.to_le_bytes());
        row.extend_from_slice(&self.id);
        row.extend_from_slice(&self.next_doc.to_le_bytes());
        row.extend_from_slice(&self.next_collection.to_le_bytes());
        row.extend_from_slice(&self.last_seq.to_le_bytes());
        row.extend_from_slice(&self.trimmed_to.to_le_bytes());
        row.extend_from_slice(&self.features.to_le_bytes());
        row.extend_from_slice(&self.history.0);
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
            if cursor.u32()? < FORMAT_WITHOUT_HISTORY {
                return Err("unknown store format");
            }
            let mut state = State {
                format,
                id: cursor.array()?,
                next_doc: cursor.u64()?,
                next_collection: cursor.u32()?,
                last_seq: cursor.u64()?,
                trimmed_to: cursor.u64()?,
                features: 0,
                history: HistoryId::NONE,
            };
            if format > FORMAT_WITHOUT_HISTORY {
                state.features = cursor.u32()?;
                state.history = HistoryId(cursor.array()?);
            }
            cursor.end()?;
            Ok(state)
        };
        let state = read().map_err(corrupt)?;
        match unknown_features(state.features) {
            Some(features) => Err(StateError::UnknownFeatures { features }),
            None => Ok(state),
        }
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

    fn new() -> State {
        State { history: HistoryId([4; 16]), ..State::new([3; 16]) }
    }

    #[test]
    fn exhausted_counters_are_errors_and_do_not_wrap() {
        let last = State { next_doc: u64::MAX, last_seq: u64::MAX, ..new() };
        let mut state = last;
        assert!(matches!(state.next_seq(), Err(StoreError::IdsExhausted)));
        assert!(matches!(state.allocate_doc(), Err(StoreError::IdsExhausted)));
        assert_eq!(state, last);
    }

    /// An older program reads the format first, and reports a newer version if it is higher than its own.
    #[test]
    fn the_row_starts_with_the_format() {
        assert_eq!(new().encode()[..4], [2, 0, 0, 0]);
    }

    #[test]
    fn the_first_format_is_read_without_history() {
        let mut row = vec![1, 0, 0, 0];
        row.extend([3; 16]);
        row.extend([5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        append_checksum(CHECKSUM_KEY, &mut row);
        let expected = State {
            format: 1,
            next_doc: 5,
            next_collection: 2,
            last_seq: 9,
            trimmed_to: 7,
            ..State::new([3; 16])
        };
        assert_eq!(State::decode(&row), Ok(expected));
    }

    #[test]
    fn unknown_features_are_reported_as_such() {
        let state = State { features: 0b1000, ..new() };
        assert_eq!(State::decode(&state.encode()), Err(StateError::UnknownFeatures { features: 0b1000 }));
        assert_eq!(State::decode(&new().encode()), Ok(new()));
    }
}
