//! Scanning the primary rows of a store: either all of them, or only the readable ones of a damaged file.

use std::ops::Bound;

use redb::{Key, OwnedAccessGuard, ReadOnlyTable, ReadableTableMetadata, StorageError, TableDefinition};

use crate::key_entry::KeyEntry;
use crate::panic::catch_panic;
use crate::primary_row::{PrimaryRow, RowKind};
use crate::row_iter::RowIter;
use crate::tables::{self, Bytes};
use crate::vector_key::VECTOR_KEY_BYTES;
use crate::{Reader, StoreError};

/// Number of failed lookups after which a scan by key stops, unless one has succeeded.
const FAILED_LOOKUPS_MAX: u64 = 10_000;

impl Reader {
    /// Visits every primary row. A table that cannot be read is reported to `visit` as an error.
    pub(crate) fn scan_rows<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(Result<PrimaryRow, StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        for kind in RowKind::ALL {
            match catch_panic(|| self.primary_rows(kind)) {
                Ok(rows) => rows.into_iter().try_for_each(&mut visit)?,
                Err(error) => visit(Err(error))?,
            }
        }
        Ok(())
    }

    fn primary_rows(
        &self,
        kind: RowKind,
    ) -> Result<Box<dyn Iterator<Item = Result<PrimaryRow, StoreError>>>, StoreError> {
        Ok(match kind {
            RowKind::Document => {
                let table = self.table(tables::DOCUMENTS)?;
                Box::new(RowIter::table(&table, kind.table(), |doc, row| {
                    Ok(Some(PrimaryRow::document(doc, row)))
                })?)
            }
            RowKind::Vectors => {
                let table = self.table(tables::VECTORS)?;
                Box::new(RowIter::table(&table, kind.table(), move |key: &[u8; VECTOR_KEY_BYTES], row| {
                    Ok(Some(PrimaryRow { kind, key: key.to_vec(), value: row.to_vec() }))
                })?)
            }
            RowKind::Schema => {
                let table = self.table(tables::SCHEMAS)?;
                Box::new(RowIter::table(&table, kind.table(), |(id, version), row| {
                    Ok(Some(PrimaryRow::schema(id, version, row)))
                })?)
            }
            RowKind::Name => {
                let table = self.table(tables::NAMES)?;
                Box::new(RowIter::table(&table, kind.table(), move |name: &[u8], row| {
                    Ok(Some(PrimaryRow { kind, key: name.to_vec(), value: row.to_vec() }))
                })?)
            }
        })
    }

    /// Visits every primary row that redb can read, and reports the rest to `visit` as errors. redb's
    /// iterators stop at a damaged page, so each table is scanned from both ends. Documents between the two
    /// stopping points are looked up individually through the `keys` table.
    pub(crate) fn scan_readable_rows<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(Result<PrimaryRow, StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let visit = &mut visit;
        let plain = |kind: RowKind, key: &[u8], row: &[u8]| PrimaryRow {
            kind,
            key: key.to_vec(),
            value: row.to_vec(),
        };
        self.scan_table(RowKind::Document, tables::DOCUMENTS, PrimaryRow::document, visit)?;
        let vectors = |key: &[u8; VECTOR_KEY_BYTES], row: &[u8]| plain(RowKind::Vectors, key, row);
        self.scan_table(RowKind::Vectors, tables::VECTORS, vectors, visit)?;
        let schema = |(id, version): (u32, u32), row: &[u8]| PrimaryRow::schema(id, version, row);
        self.scan_table(RowKind::Schema, tables::SCHEMAS, schema, visit)?;
        self.scan_table(
            RowKind::Name,
            tables::NAMES,
            |name: &[u8], row: &[u8]| plain(RowKind::Name, name, row),
            visit,
        )
    }

    /// The sum of the row counts that redb reports for the four tables. A table that cannot be opened counts
    /// as empty.
    pub(crate) fn row_count(&self) -> u64 {
        let len = |len: Result<u64, StoreError>| len.unwrap_or(0);
        [
            len(self.document_count()),
            len(catch_panic(|| Ok(self.table(tables::VECTORS)?.len()?))),
            len(catch_panic(|| Ok(self.table(tables::SCHEMAS)?.len()?))),
            len(catch_panic(|| Ok(self.table(tables::NAMES)?.len()?))),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    fn scan_table<K: Key + 'static, E: From<StoreError>>(
        &self,
        kind: RowKind,
        definition: TableDefinition<'static, K, Bytes>,
        row_from: impl Fn(K::SelfType<'_>, &[u8]) -> PrimaryRow,
        visit: &mut impl FnMut(Result<PrimaryRow, StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let opened = catch_panic(|| {
            let table = self.table(definition)?;
            let len = table.len()?;
            Ok((table, len))
        });
        let (table, len) = match opened {
            Ok(opened) => opened,
            Err(error) => return visit(Err(error)),
        };
        let outcome = scan_from_both_ends(&table, row_from, &mut |row| visit(Ok(row)))?;
        let mut visited = outcome.visited;
        if let Some(damage) = outcome.damage {
            visit(Err(damage))?;
            if kind == RowKind::Document {
                visited += self.scan_documents_between(outcome.last, outcome.first_after, visit)?;
            }
        }
        if visited < len {
            let reason = format!("table {}: {} of {len} rows are unreadable", kind.table(), len - visited);
            visit(Err(StoreError::Damaged { reason }))?;
        }
        Ok(())
    }

    /// Looks up, through the `keys` table, the documents between two document numbers. Returns how many it
    /// visited.
    fn scan_documents_between<E: From<StoreError>>(
        &self,
        after: Option<Vec<u8>>,
        before: Option<Vec<u8>>,
        visit: &mut impl FnMut(Result<PrimaryRow, StoreError>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let number = |key: Vec<u8>| key.try_into().map(u64::from_le_bytes).ok();
        let (after, before) = (after.and_then(number), before.and_then(number));
        let opened = catch_panic(|| Ok((self.table(tables::KEYS)?, self.table(tables::DOCUMENTS)?)));
        let Ok((keys, documents)) = opened else { return Ok(0) };
        let (mut visited, mut failed) = (0, 0);
        let entry = |key: &[u8], entry: &[u8]| KeyEntry::decode(key, entry).ok();
        scan_from_both_ends(&keys, entry, &mut |entry| {
            let doc = match entry {
                Some(KeyEntry { doc, .. })
                    if after.is_none_or(|after| doc.0 > after)
                        && before.is_none_or(|before| doc.0 < before) =>
                {
                    doc.0
                }
                _ => return Ok(()),
            };
            if visited == 0 && failed == FAILED_LOOKUPS_MAX {
                // A common parent page is damaged. Each further lookup could make redb panic and log it.
                return Ok(());
            }
            let found =
                catch_panic(|| Ok(documents.get(doc)?.map(|row| PrimaryRow::document(doc, row.value()))));
            // The caller counts the missing documents.
            let Ok(Some(row)) = found else {
                failed += 1;
                return Ok(());
            };
            visited += 1;
            visit(Ok(row))
        })?;
        Ok(visited)
    }
}

/// The result of scanning a table from both ends.
struct ScanOutcome {
    visited: u64,
    /// The error at which the forward scan stopped, if it did.
    damage: Option<StoreError>,
    /// Key of the last row read by the forward scan.
    last: Option<Vec<u8>>,
    /// Key of the last row read by the backward scan: the first readable row after the damage.
    first_after: Option<Vec<u8>>,
}

/// Visits rows forward up to the first unreadable one, and then backward from the end up to an unreadable one.
fn scan_from_both_ends<K: Key + 'static, T, E>(
    table: &ReadOnlyTable<K, Bytes>,
    row_from: impl Fn(K::SelfType<'_>, &[u8]) -> T,
    visit: &mut impl FnMut(T) -> Result<(), E>,
) -> Result<ScanOutcome, E> {
    let (mut visited, mut last, mut first_after) = (0, None, None);
    let forward = catch_panic(|| Ok(table.range_owned::<K::SelfType<'_>>(..)?));
    let damage = scan_until_error(forward, &row_from, &mut |key, row| {
        visited += 1;
        last = Some(key);
        visit(row)
    })?;
    if damage.is_some() {
        let backward = catch_panic(|| {
            let after = last.as_deref().map_or(Bound::Unbounded, |last| Bound::Excluded(K::from_bytes(last)));
            Ok(table.range_owned::<K::SelfType<'_>>((after, Bound::Unbounded))?.rev())
        });
        // The error is ignored: the forward scan has reported the damage, and the caller counts missing rows.
        scan_until_error(backward, &row_from, &mut |key, row| {
            visited += 1;
            first_after = Some(key);
            visit(row)
        })?;
    }
    Ok(ScanOutcome { visited, damage, last, first_after })
}

type RowGuards<K> = (OwnedAccessGuard<K>, OwnedAccessGuard<Bytes>);

/// Visits rows up to the first that redb cannot read, and returns that error. The iterator is not used after it.
fn scan_until_error<K: Key + 'static, T, E>(
    rows: Result<impl Iterator<Item = Result<RowGuards<K>, StorageError>>, StoreError>,
    row_from: impl Fn(K::SelfType<'_>, &[u8]) -> T,
    visit: &mut impl FnMut(Vec<u8>, T) -> Result<(), E>,
) -> Result<Option<StoreError>, E> {
    let mut rows = match rows {
        Ok(rows) => rows,
        Err(error) => return Ok(Some(error)),
    };
    loop {
        let row = catch_panic(|| {
            let Some(row) = rows.next() else { return Ok(None) };
            let (key, row) = row?;
            let bytes = K::as_bytes(&key.value()).as_ref().to_vec();
            Ok(Some((bytes, row_from(key.value(), row.value()))))
        });
        match row {
            Ok(Some((key, row))) => visit(key, row)?,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        }
    }
}
