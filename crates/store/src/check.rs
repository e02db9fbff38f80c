//! Integrity check: reading the whole store and reporting all damage.

use redb::{ReadableTable, ReadableTableMetadata};

use crate::builder::RecordCounts;
use crate::change::ChangeKind;
use crate::error::printable;
use crate::expiry;
use crate::key_entry::KeyEntry;
use crate::panic::catch_panic;
use crate::primary_row::VerifiedRow;
use crate::tables::{self, corrupt};
use crate::{Change, CollectionVersion, DocId, Reader, Store, StoreError, VectorKey, orphans};

/// The result of checking or salvaging a store.
#[derive(Debug, Default)]
pub struct IntegrityReport {
    /// The number of readable records of each kind.
    pub counts: RecordCounts,
    /// The damage found, with tables and keys. At most 1,000 errors are listed.
    pub damage: Vec<StoreError>,
    /// Number of further errors that are not listed.
    pub unlisted: u64,
    /// Number of rows that salvaging could not recover; 0 after a check.
    pub lost: u64,
}

/// Maximum number of listed errors.
const LISTED_MAX: usize = 1_000;

impl IntegrityReport {
    pub(crate) fn add(&mut self, damage: StoreError) {
        if self.damage.len() < LISTED_MAX {
            self.damage.push(damage);
        } else {
            self.unlisted += 1;
        }
    }

    fn add_if_err<T>(&mut self, result: Result<T, StoreError>) {
        if let Err(damage) = result {
            self.add(damage);
        }
    }

    /// Whether no damage was found.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Store {
    /// Verifies all pages and rows, and that related rows agree. The store must have no readers or
    /// writers.
    pub fn check(&mut self) -> IntegrityReport {
        let mut report = IntegrityReport::default();
        let verified = self.verify();
        report.add_if_err(verified);
        match self.read() {
            Ok(reader) => reader.check(&mut report),
            Err(error) => report.add(error),
        }
        report
    }
}

impl Reader {
    fn check(&self, report: &mut IntegrityReport) {
        let scanned = self.scan_readable_rows(|row| -> Result<(), StoreError> {
            match row.and_then(|row| row.verify()) {
                Ok(verified) => {
                    report.counts.add(&verified);
                    report.add_if_err(catch_panic(|| self.check_row(&verified)));
                }
                Err(error) => report.add(error),
            }
            Ok(())
        });
        report.add_if_err(scanned);
        let checks =
            [Reader::check_keys, Reader::check_expiries, Reader::check_changes, Reader::check_histories];
        for check in checks {
            let completed = catch_panic(|| check(self, report));
            report.add_if_err(completed);
        }
    }

    /// Verifies that everything a row refers to exists.
    fn check_row(&self, row: &VerifiedRow) -> Result<(), StoreError> {
        match row {
            VerifiedRow::Document(doc, document) => {
                let damaged = |reason| Err(corrupt("documents", doc.0.to_string(), reason));
                match tables::key_entry(&self.table(tables::KEYS)?, &document.key)? {
                    None => return damaged("its key is missing"),
                    Some(entry) if entry.doc != *doc => return damaged("its key refers to another document"),
                    Some(entry) if entry.expires_at_ms != document.expires_at_ms => {
                        return damaged("its key has another expiry");
                    }
                    Some(_) => {}
                }
                if let Some(at_ms) = document.expires_at_ms
                    && self.table(tables::EXPIRIES)?.get((at_ms, doc.0))?.is_none()
                {
                    return damaged("its expiry is missing");
                }
            }
            VerifiedRow::Vectors(row_key, keys) => {
                for key in keys {
                    if self.document(key.doc)?.is_none() {
                        return Err(corrupt("vectors", printable(row_key), "the document does not exist"));
                    }
                }
            }
            VerifiedRow::Schema(_) | VerifiedRow::Name(..) => {}
        }
        self.check_target(row)
    }

    /// Verifies that the collection of a row, or the target of a name, exists.
    pub(crate) fn check_target(&self, row: &VerifiedRow) -> Result<(), StoreError> {
        match row {
            VerifiedRow::Vectors(key, _) => {
                let CollectionVersion { id, version } = VectorKey::decode(key).collection;
                if self.table(tables::SCHEMAS)?.get((id, version))?.is_none() {
                    return Err(corrupt("vectors", printable(key), orphans::UNKNOWN_COLLECTION));
                }
            }
            VerifiedRow::Name(name, target) => {
                if !tables::target_exists(&self.table(tables::SCHEMAS)?, &self.table(tables::NAMES)?, target)?
                {
                    return Err(corrupt("names", printable(name.as_bytes()), orphans::UNKNOWN_TARGET));
                }
            }
            VerifiedRow::Document(..) | VerifiedRow::Schema(_) => {}
        }
        Ok(())
    }

    fn check_keys(&self, report: &mut IntegrityReport) -> Result<(), StoreError> {
        let keys = self.table(tables::KEYS)?;
        for row in keys.iter()? {
            let (key, row) = row?;
            let key = key.value();
            match KeyEntry::decode(key, row.value()) {
                Ok(entry) if self.table(tables::DOCUMENTS)?.get(entry.doc.0)?.is_none() => {
                    report.add(corrupt("keys", printable(key), "its document does not exist"));
                }
                Ok(_) => {}
                Err(reason) => report.add(corrupt("keys", printable(key), reason)),
            }
        }
        if keys.len()? != self.document_count()? {
            report.add(corrupt("keys", "all", "their number differs from the number of documents"));
        }
        Ok(())
    }

    fn check_expiries(&self, report: &mut IntegrityReport) -> Result<(), StoreError> {
        for row in self.table(tables::EXPIRIES)?.iter()? {
            let (key, sum) = row?;
            let (at_ms, doc) = key.value();
            let key_text = || format!("{at_ms}, {doc}");
            if sum.value() != expiry::checksum(at_ms, DocId(doc)) {
                report.add(corrupt("expiries", key_text(), "the checksum does not match"));
                continue;
            }
            match self.document(DocId(doc)) {
                Ok(Some(document)) if document.expires_at_ms == Some(at_ms) => {}
                Ok(_) => report.add(corrupt("expiries", key_text(), "no document expires at this time")),
                // Reported with the document.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn check_changes(&self, report: &mut IntegrityReport) -> Result<(), StoreError> {
        let documents = self.table(tables::DOCUMENTS)?;
        for row in self.table(tables::CHANGES)?.iter()? {
            let (seq, row) = row?;
            let seq = seq.value();
            match Change::decode(seq, row.value()) {
                Ok(change) => {
                    let exists = documents.get(change.doc.0)?.is_some();
                    if exists != (change.kind == ChangeKind::Written) {
                        report.add(corrupt("changes", seq.to_string(), "it contradicts the documents"));
                    }
                }
                Err(reason) => report.add(corrupt("changes", seq.to_string(), reason)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::{Options, record};

    #[test]
    fn lists_a_limited_number_of_errors_and_counts_the_rest() {
        const DOCUMENTS: u64 = LISTED_MAX as u64 + 200;
        let mut store = Store::open_with_backend(InMemoryBackend::new(), Options::default()).unwrap();
        let transaction = store.begin().unwrap();
        for doc in 1..=DOCUMENTS {
            let row = record::encode(DocId(doc), &doc.to_be_bytes(), doc, None, &[]);
            transaction.open_table(tables::DOCUMENTS).unwrap().insert(doc, &*row).unwrap();
        }
        transaction.commit().unwrap();
        let report = store.check();
        assert_eq!(report.damage.len(), LISTED_MAX);
        // Also the mismatch between the numbers of keys and documents.
        assert_eq!(report.unlisted, 201);
        let first = report.damage[0].to_string();
        assert!(first.contains("table documents, key 1: its key is missing"), "{first}");
    }
}
