//! Salvaging the readable rows of a damaged store.

use std::path::Path;

use crate::builder::{Counters, ID_MAX, StoreBuilder};
use crate::check::IntegrityReport;
use crate::primary_row::VerifiedRow;
use crate::tables::corrupt;
use crate::{OpenError, Options, Store, StoreError};

impl Store {
    /// Creates a new store at `path` from every row of this store that can be read and whose references can be
    /// resolved. The report lists and counts everything else.
    pub fn salvage(&self, path: &Path, options: Options) -> Result<IntegrityReport, OpenError> {
        let mut report = IntegrityReport::default();
        let mut builder = StoreBuilder::new(Store::open(path, options)?);
        let open_error =
            |error: StoreError| OpenError::Corrupt { path: path.to_owned(), reason: error.to_string() };
        let reader = self.read().map_err(open_error)?;
        let state = reader.state().map_err(open_error)?;
        let rows = reader.row_count();
        let (mut next_doc, mut last_seq) = (state.next_doc, state.last_seq);
        let mut salvaged = 0;
        reader
            .scan_readable_rows(|row| {
                let added = row.and_then(|row| {
                    let verified = row.verify()?;
                    if let VerifiedRow::Document(doc, document) = &verified
                        && doc.0.max(document.seq) >= ID_MAX
                    {
                        return Err(corrupt("documents", doc.0.to_string(), "its number is out of range"));
                    }
                    builder.add(&row, &verified).map(|()| verified)
                });
                match added {
                    Ok(row) => {
                        if let VerifiedRow::Document(doc, document) = &row {
                            next_doc = next_doc.max(doc.0 + 1);
                            last_seq = last_seq.max(document.seq);
                        }
                        report.counts.add(&row);
                        salvaged += 1;
                    }
                    Err(damage @ (StoreError::Corrupt { .. } | StoreError::Damaged { .. })) => {
                        report.add(damage);
                    }
                    Err(failure) => return Err(failure),
                }
                Ok(())
            })
            .map_err(open_error)?;
        let orphans = builder.remove_orphans().map_err(open_error)?;
        report.counts = report.counts.minus(orphans.counts);
        report.lost = rows.saturating_sub(salvaged).saturating_add(orphans.rows);
        orphans.damage.into_iter().for_each(|damage| report.add(damage));
        builder
            .finish(Counters { next_doc, next_collection: state.next_collection, last_seq })
            .map_err(open_error)?;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::{DocId, record, tables};

    #[test]
    fn skips_documents_with_out_of_range_numbers() {
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
        let path = directory.path().join("salvaged");
        let report = damaged.salvage(&path, Options::default()).unwrap();
        assert_eq!((report.counts.documents, report.lost), (1, 2), "{:?}", report.damage);
        let salvaged = Store::open(&path, Options::default()).unwrap();
        let mut writer = salvaged.write().unwrap();
        assert_eq!(writer.put(b"d", &[], None).unwrap(), (DocId(6), 10));
    }
}
