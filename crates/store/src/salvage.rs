//! Saving what can be read of a damaged store.

use std::path::Path;

use crate::check::IntegrityReport;
use crate::item::Verified;
use crate::rebuild::{NUMBER_MAX, Numbers, Rebuild};
use crate::tables::corrupt;
use crate::{OpenError, Options, Store, StoreError};

impl Store {
    /// Makes the store in `path`, where there is none, of every row of this one that can be reached and read, with
    /// what it belongs to; the rest is what is found, and counted.
    pub fn salvage(&self, path: &Path, options: Options) -> Result<IntegrityReport, OpenError> {
        let mut findings = IntegrityReport::default();
        let mut rebuild = Rebuild::begin(Store::open(path, options)?);
        let lost =
            |error: StoreError| OpenError::Corrupt { path: path.to_owned(), reason: error.to_string() };
        let reader = self.read().map_err(lost)?;
        let state = reader.state().map_err(lost)?;
        let rows = reader.row_count();
        let (mut next_doc, mut last_seq) = (state.next_doc, state.last_seq);
        let mut saved = 0;
        reader
            .each_reachable(|item| {
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
                        saved += 1;
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
        findings.lost = rows.saturating_sub(saved).saturating_add(loose.rows);
        loose.damage.into_iter().for_each(|damage| findings.note(damage));
        rebuild
            .finish(Numbers { next_doc, next_collection: state.next_collection, last_seq })
            .map_err(lost)?;
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::{DocId, record, tables};

    #[test]
    fn a_document_with_a_number_no_store_comes_to_is_left_out() {
        let damaged = Store::open_with_backend(InMemoryBackend::new(), Options::default()).unwrap();
        let transaction = damaged.begin().unwrap();
        {
            let mut documents = transaction.open_table(tables::DOCUMENTS).unwrap();
            for (doc, key, seq) in [(5, "a", 9), (u64::MAX, "b", 1), (6, "c", u64::MAX)] {
                let row = record::encode(DocId(doc), key.as_bytes(), seq, None, &[]);
                documents.insert(doc, &*row).unwrap();
            }
        }
        transaction.commit().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("saved");
        let found = damaged.salvage(&path, Options::default()).unwrap();
        assert_eq!((found.counts.documents, found.lost), (1, 2), "{:?}", found.damage);
        let saved = Store::open(&path, Options::default()).unwrap();
        let mut writer = saved.write().unwrap();
        assert_eq!(writer.put(b"d", &[], None).unwrap(), (DocId(6), 10));
    }
}
