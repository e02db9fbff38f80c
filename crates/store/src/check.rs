//! Reading everything a store holds, and saying what is wrong with it; saving what can be read.

use std::path::Path;

use redb::{ReadableTable, ReadableTableMetadata};

use crate::change::ChangeKind;
use crate::contain::contain;
use crate::error::shown;
use crate::expiry;
use crate::item::{Item, Kind, Verified};
use crate::key_entry::KeyEntry;
use crate::rebuild::{Counts, NUMBER_MAX, Numbers, Rebuild};
use crate::rows::Rows;
use crate::tables::{self, corrupt};
use crate::vector::VECTOR_KEY_BYTES;
use crate::{
    Change, CollectionVersion, DocId, OpenError, Options, Reader, Store, StoreError, VectorKey, loose,
};

/// What a look at everything found.
#[derive(Debug, Default)]
pub struct Findings {
    /// How much of what could be read.
    pub counts: Counts,
    /// What is wrong, each with its table and key.
    pub damage: Vec<StoreError>,
    /// How much more is wrong than is listed.
    pub unlisted: u64,
}

/// Damage that is listed.
const LISTED_MAX: usize = 1000;

impl Findings {
    fn note(&mut self, damage: StoreError) {
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
    pub fn are_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

impl Store {
    /// Verifies every page, every row, and that rows which belong together agree. Needs a store nobody
    /// reads or writes.
    pub fn check(&mut self) -> Findings {
        let mut findings = Findings::default();
        let verified = self.verify();
        findings.note_if(verified);
        match self.read() {
            Ok(reader) => reader.check(&mut findings),
            Err(error) => findings.note(error),
        }
        findings
    }

    /// Makes the store in `path`, where there is none, of every row of this one that can be read; what
    /// cannot be is what is found.
    pub fn salvage(&self, path: &Path, options: Options) -> Result<Findings, OpenError> {
        let mut findings = Findings::default();
        let mut rebuild = Rebuild::begin(Store::open(path, options)?);
        let lost =
            |error: StoreError| OpenError::Corrupt { path: path.to_owned(), reason: error.to_string() };
        let reader = self.read().map_err(lost)?;
        let state = reader.state().map_err(lost)?;
        let (mut next_doc, mut last_seq) = (state.next_doc, state.last_seq);
        reader
            .each_item(|item| {
                let added = item.and_then(|item| {
                    let row = item.verify()?;
                    if let Verified::Document(doc, document) = &row
                        && doc.0.max(document.seq) >= NUMBER_MAX
                    {
                        return Err(corrupt("documents", doc.0.to_string(), "no store comes to its number"));
                    }
                    rebuild.add(&item, &row).map(|()| row)
                });
                match added {
                    Ok(row) => {
                        if let Verified::Document(doc, document) = &row {
                            next_doc = next_doc.max(doc.0 + 1);
                            last_seq = last_seq.max(document.seq);
                        }
                        findings.counts.add(&row);
                    }
                    Err(damage @ (StoreError::Corrupt { .. } | StoreError::Damaged { .. })) => {
                        findings.note(damage);
                    }
                    Err(failure) => return Err(failure),
                }
                Ok(())
            })
            .map_err(lost)?;
        let loose = rebuild.remove_loose().map_err(lost)?;
        findings.counts = findings.counts.without(loose.counts);
        loose.damage.into_iter().for_each(|damage| findings.note(damage));
        rebuild
            .finish(Numbers { next_doc, next_collection: state.next_collection, last_seq })
            .map_err(lost)?;
        Ok(findings)
    }
}

impl Reader {
    /// Visits every row that is not derived from others. What cannot be read of a table is visited as an error.
    pub(crate) fn each_item<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(Result<Item, StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        for kind in Kind::ALL {
            match contain(|| self.items(kind)) {
                Ok(rows) => rows.into_iter().try_for_each(&mut visit)?,
                Err(error) => visit(Err(error))?,
            }
        }
        Ok(())
    }

    fn items(&self, kind: Kind) -> Result<Box<dyn Iterator<Item = Result<Item, StoreError>>>, StoreError> {
        Ok(match kind {
            Kind::Document => {
                let table = self.table(tables::DOCUMENTS)?;
                Box::new(Rows::of(&table, kind.table(), |doc, row| Ok(Some(Item::document(doc, row))))?)
            }
            Kind::Vectors => {
                let table = self.table(tables::VECTORS)?;
                Box::new(Rows::of(&table, kind.table(), move |key: &[u8; VECTOR_KEY_BYTES], row| {
                    Ok(Some(Item { kind, key: key.to_vec(), row: row.to_vec() }))
                })?)
            }
            Kind::Schema => {
                let table = self.table(tables::SCHEMAS)?;
                Box::new(Rows::of(&table, kind.table(), |(id, version), row| {
                    Ok(Some(Item::schema(id, version, row)))
                })?)
            }
            Kind::Name => {
                let table = self.table(tables::NAMES)?;
                Box::new(Rows::of(&table, kind.table(), move |name: &[u8], row| {
                    Ok(Some(Item { kind, key: name.to_vec(), row: row.to_vec() }))
                })?)
            }
        })
    }

    fn check(&self, findings: &mut Findings) {
        let mut listed = Vec::new();
        let checked = self.each_item(|item| -> Result<(), StoreError> {
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
