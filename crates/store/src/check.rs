//! Reading everything a store holds, and saying what is wrong with it.

use redb::{ReadableTable, ReadableTableMetadata};

use crate::change::ChangeKind;
use crate::contain::contain;
use crate::error::shown;
use crate::expiry;
use crate::item::Verified;
use crate::key_entry::KeyEntry;
use crate::rebuild::RecordCounts;
use crate::tables::{self, corrupt};
use crate::{Change, CollectionVersion, DocId, Reader, Store, StoreError, VectorKey, loose};

/// What a look at everything found.
#[derive(Debug, Default)]
pub struct IntegrityReport {
    /// How much of what could be read.
    pub counts: RecordCounts,
    /// What is wrong, each with its table and key.
    pub damage: Vec<StoreError>,
    /// How much more is wrong than is listed.
    pub unlisted: u64,
    /// Rows of the damaged store that are not in the new one, where one was made.
    pub lost: u64,
}

/// Damage that is listed.
const LISTED_MAX: usize = 1000;

impl IntegrityReport {
    pub(crate) fn note(&mut self, damage: StoreError) {
        if self.damage.len() < LISTED_MAX {
            self.damage.push(damage);
        } else {
            self.unlisted += 1;
        }
    }

    fn note_if<T>(&mut self, result: Result<T, StoreError>) {
        if let Err(damage) = result {
            self.note(damage);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Store {
    /// Verifies every page, every row, and that rows which belong together agree. Needs a store nobody
    /// reads or writes.
    pub fn check(&mut self) -> IntegrityReport {
        let mut findings = IntegrityReport::default();
        let verified = self.verify();
        findings.note_if(verified);
        match self.read() {
            Ok(reader) => reader.check(&mut findings),
            Err(error) => findings.note(error),
        }
        findings
    }
}

impl Reader {
    fn check(&self, findings: &mut IntegrityReport) {
        let mut listed = Vec::new();
        let checked = self.each_reachable(|item| -> Result<(), StoreError> {
            match item.and_then(|item| item.verify()) {
                Ok(row) => {
                    findings.counts.add(&row);
                    let agrees = contain(|| self.check_row(&row));
                    listed.extend(agrees.err());
                }
                Err(damage) => listed.push(damage),
            }
            Ok(())
        });
        listed.extend(checked.err());
        for damage in listed {
            findings.note(damage);
        }
        for table in [Reader::check_keys, Reader::check_expiries, Reader::check_changes] {
            let mut found = Vec::new();
            let ended = contain(|| table(self, &mut found));
            found.into_iter().chain(ended.err()).for_each(|damage| findings.note(damage));
        }
    }

    /// Whether what a row refers to is there.
    fn check_row(&self, row: &Verified) -> Result<(), StoreError> {
        match row {
            Verified::Document(doc, document) => {
                let entry = tables::key_entry(&self.table(tables::KEYS)?, &document.key)?;
                if entry
                    .is_none_or(|entry| entry.doc != *doc || entry.expires_at_ms != document.expires_at_ms)
                {
                    return Err(corrupt("documents", doc.0.to_string(), "its key does not lead back to it"));
                }
                if let Some(at_ms) = document.expires_at_ms
                    && self.table(tables::EXPIRIES)?.get((at_ms, doc.0))?.is_none()
                {
                    return Err(corrupt("documents", doc.0.to_string(), "its expiry is missing"));
                }
            }
            Verified::Vectors(key, vectors) => {
                for vector in vectors {
                    if self.document(vector.doc)?.is_none() {
                        return Err(corrupt("vectors", shown(key), "it is of a document that is not there"));
                    }
                }
            }
            Verified::Schema(_) | Verified::Name(..) => {}
        }
        self.check_leads(row)
    }

    /// Whether the collection a row is of, or leads to, is there.
    pub(crate) fn check_leads(&self, row: &Verified) -> Result<(), StoreError> {
        match row {
            Verified::Vectors(key, _) => {
                let CollectionVersion { id, version } = VectorKey::decode(key).collection;
                if self.table(tables::SCHEMAS)?.get((id, version))?.is_none() {
                    return Err(corrupt("vectors", shown(key), loose::NO_SCHEMA));
                }
            }
            Verified::Name(name, target) => {
                if !tables::leads(&self.table(tables::SCHEMAS)?, &self.table(tables::NAMES)?, target)? {
                    return Err(corrupt("names", shown(name.as_bytes()), loose::NOWHERE));
                }
            }
            Verified::Document(..) | Verified::Schema(_) => {}
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
                    found.push(corrupt("keys", shown(key), "leads to no document"));
                }
                Ok(_) => {}
                Err(reason) => found.push(corrupt("keys", shown(key), reason)),
            }
        }
        if keys.len()? != self.document_count()? {
            found.push(corrupt("keys", "all", "there are more or fewer than documents"));
        }
        Ok(())
    }

    fn check_expiries(&self, found: &mut Vec<StoreError>) -> Result<(), StoreError> {
        for row in self.table(tables::EXPIRIES)?.iter()? {
            let (key, sum) = row?;
            let (at_ms, doc) = key.value();
            let place = || format!("{at_ms}, {doc}");
            if sum.value() != expiry::row(at_ms, DocId(doc)) {
                found.push(corrupt("expiries", place(), "checksum does not match"));
                continue;
            }
            match self.document(DocId(doc)) {
                Ok(Some(document)) if document.expires_at_ms == Some(at_ms) => {}
                Ok(_) => found.push(corrupt("expiries", place(), "no document ends then")),
                // Told where the document is.
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
                    let stands = documents.get(change.doc.0)?.is_some();
                    if stands != (change.kind == ChangeKind::Written) {
                        found.push(corrupt("changes", seq.to_string(), "the document says otherwise"));
                    }
                }
                Err(reason) => found.push(corrupt("changes", seq.to_string(), reason)),
            }
        }
        Ok(())
    }
}
