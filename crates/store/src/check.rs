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
const LISTED_MAX: usize = 1000;

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
        let mut damage = Vec::new();
        let checked = self.scan_readable_rows(|row| -> Result<(), StoreError> {
            match row.and_then(|row| row.verify()) {
                Ok(verified) => {
                    report.counts.add(&verified);
                    damage.extend(catch_panic(|| self.check_row(&verified)).err());
                }
                Err(error) => damage.push(error),
            }
            Ok(())
        });
        damage.extend(checked.err());
        damage.into_iter().for_each(|error| report.add(error));
        for check in [Reader::check_keys, Reader::check_expiries, Reader::check_changes] {
            let mut found = Vec::new();
            let completed = catch_panic(|| check(self, &mut found));
            found.into_iter().chain(completed.err()).for_each(|damage| report.add(damage));
        }
    }

    /// Verifies that everything a row refers to exists.
    fn check_row(&self, row: &VerifiedRow) -> Result<(), StoreError> {
        match row {
            VerifiedRow::Document(doc, document) => {
                let entry = tables::key_entry(&self.table(tables::KEYS)?, &document.key)?;
                if entry
                    .is_none_or(|entry| entry.doc != *doc || entry.expires_at_ms != document.expires_at_ms)
                {
                    return Err(corrupt(
                        "documents",
                        doc.0.to_string(),
                        "its key refers to another document",
                    ));
                }
                if let Some(at_ms) = document.expires_at_ms
                    && self.table(tables::EXPIRIES)?.get((at_ms, doc.0))?.is_none()
                {
                    return Err(corrupt("documents", doc.0.to_string(), "its expiry is missing"));
                }
            }
            VerifiedRow::Vectors(key, vectors) => {
                for vector in vectors {
                    if self.document(vector.doc)?.is_none() {
                        return Err(corrupt("vectors", printable(key), "the document does not exist"));
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

    fn check_keys(&self, found: &mut Vec<StoreError>) -> Result<(), StoreError> {
        let keys = self.table(tables::KEYS)?;
        for row in keys.iter()? {
            let (key, row) = row?;
            let key = key.value();
            match KeyEntry::decode(key, row.value()) {
                Ok(entry) if self.table(tables::DOCUMENTS)?.get(entry.doc.0)?.is_none() => {
                    found.push(corrupt("keys", printable(key), "its document does not exist"));
                }
                Ok(_) => {}
                Err(reason) => found.push(corrupt("keys", printable(key), reason)),
            }
        }
        if keys.len()? != self.document_count()? {
            found.push(corrupt("keys", "all", "their number differs from the number of documents"));
        }
        Ok(())
    }

    fn check_expiries(&self, found: &mut Vec<StoreError>) -> Result<(), StoreError> {
        for row in self.table(tables::EXPIRIES)?.iter()? {
            let (key, sum) = row?;
            let (at_ms, doc) = key.value();
            let key_text = || format!("{at_ms}, {doc}");
            if sum.value() != expiry::checksum(at_ms, DocId(doc)) {
                found.push(corrupt("expiries", key_text(), "the checksum does not match"));
                continue;
            }
            match self.document(DocId(doc)) {
                Ok(Some(document)) if document.expires_at_ms == Some(at_ms) => {}
                Ok(_) => found.push(corrupt("expiries", key_text(), "no document expires at this time")),
                // Reported with the document.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn check_changes(&self, found: &mut Vec<StoreError>) -> Result<(), StoreError> {
        let documents = self.table(tables::DOCUMENTS)?;
        for row in self.table(tables::CHANGES)?.iter()? {
            let (seq, row) = row?;
            let seq = seq.value();
            match Change::decode(seq, row.value()) {
                Ok(change) => {
                    let exists = documents.get(change.doc.0)?.is_some();
                    if exists != (change.kind == ChangeKind::Written) {
                        found.push(corrupt("changes", seq.to_string(), "it contradicts the documents"));
                    }
                }
                Err(reason) => found.push(corrupt("changes", seq.to_string(), reason)),
            }
        }
        Ok(())
    }
}
