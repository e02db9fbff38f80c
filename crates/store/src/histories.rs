//! Histories: which opening of the store made which changes.
//!
//! Two copies of a store have the same id and go on to assign the same sequence numbers to different changes. To tell
//! them apart, the first change after each opening begins a *history* with a random id. The `histories` table maps the
//! last sequence number before a history to its id, so the store knows the history of every change. Data derived from
//! the store records the history that it was derived in, and is not used with a store whose changes belong to
//! another one.
//!
//! What a store contains when it is created, or restored under an id of its own, precedes its first history. All its
//! copies share that content.

use redb::{ReadableTable, WriteTransaction};

use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::Cursor;
use crate::panic::catch_panic;
use crate::state::{FORMAT_WITHOUT_HISTORY, State};
use crate::tables::{self, corrupt};
use crate::{IntegrityReport, Reader, Seq, StoreError};

/// The id of a history: random, so that no two openings of any store have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryId(pub [u8; 16]);

impl HistoryId {
    /// Stands for the content that precedes the first history.
    pub(crate) const NONE: HistoryId = HistoryId([0; 16]);

    /// `id 16 bytes | CRC-32`. The checksum covers the sequence number before the history as key.
    fn encode(self, after: Seq) -> Vec<u8> {
        let mut row = self.0.to_vec();
        append_checksum(&after.to_le_bytes(), &mut row);
        row
    }

    fn decode(after: Seq, row: &[u8]) -> Result<HistoryId, StoreError> {
        let read = || {
            let mut cursor = Cursor(strip_checksum(&after.to_le_bytes(), row)?);
            let id = HistoryId(cursor.array()?);
            cursor.end()?;
            Ok(id)
        };
        read().map_err(|reason| corrupt("histories", after.to_string(), reason))
    }
}

/// Begins the history `id` with the next change after `after`.
pub(crate) fn begin(transaction: &WriteTransaction, id: HistoryId, after: Seq) -> Result<(), StoreError> {
    transaction.open_table(tables::HISTORIES)?.insert(after, &*id.encode(after))?;
    Ok(())
}

/// Removes histories that ended before `trimmed_to`.
pub(crate) fn trim(transaction: &WriteTransaction, trimmed_to: Seq) -> Result<(), StoreError> {
    let mut histories = transaction.open_table(tables::HISTORIES)?;
    // What was derived just after the change `trimmed_to` is still used, so the history of that change is kept.
    let kept = histories.range(..trimmed_to)?.next_back().transpose()?.map(|(after, _)| after.value());
    if let Some(kept) = kept {
        histories.retain_in(..kept, |_, _| false)?;
    }
    Ok(())
}

impl Reader {
    /// Whether the store was in `history` after each change from `first` to `last`.
    pub fn was_in_history(&self, history: HistoryId, first: Seq, last: Seq) -> Result<bool, StoreError> {
        let State { format, last_seq, .. } = self.state()?;
        if format <= FORMAT_WITHOUT_HISTORY || first > last || last > last_seq {
            return Ok(false);
        }
        catch_panic(|| {
            let histories = self.table(tables::HISTORIES)?;
            let later = histories.range(first + 1..)?.next().transpose()?;
            let mut end = later.map_or(last_seq, |(begin, _)| begin.value());
            for row in histories.range(..=first)?.rev() {
                let (begin, row) = row?;
                let begin = begin.value();
                if HistoryId::decode(begin, row.value())? == history {
                    return Ok(last <= end);
                }
                if begin < first {
                    return Ok(false);
                }
                // This history begins after the change `first`, which itself belongs to the preceding one.
                end = begin;
            }
            Ok(history == HistoryId::NONE && last <= end)
        })
    }

    /// Verifies that the recorded histories are readable and end with that of the last change.
    pub(crate) fn check_histories(&self, report: &mut IntegrityReport) -> Result<(), StoreError> {
        let state = self.state()?;
        if state.format <= FORMAT_WITHOUT_HISTORY {
            return Ok(());
        }
        let mut last = HistoryId::NONE;
        for row in self.table(tables::HISTORIES)?.iter()? {
            let (after, row) = row?;
            let after = after.value();
            match HistoryId::decode(after, row.value()) {
                Ok(_) if after > state.last_seq => {
                    report.add(corrupt("histories", after.to_string(), "it begins after the last change"));
                }
                Ok(history) => last = history,
                Err(error) => report.add(error),
            }
        }
        if last != state.history {
            report.add(corrupt("histories", "all", "the history of the last change is missing"));
        }
        Ok(())
    }
}
