//! Visiting the rows that nothing else can be made from: all of them, or those that can be reached.

use std::ops::Bound;

use redb::{Key, OwnedAccessGuard, ReadOnlyTable, ReadableTableMetadata, StorageError, TableDefinition};

use crate::contain::contain;
use crate::item::{Item, Kind};
use crate::key_entry::KeyEntry;
use crate::rows::Rows;
use crate::tables;
use crate::vector::VECTOR_KEY_BYTES;
use crate::{Reader, StoreError};

type Bytes = &'static [u8];

/// Documents that are looked for in vain before the rest is given up, unless one was found.
const FAILED_MAX: u64 = 10_000;

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

    /// Visits every row that redb can be brought to, and as an error whatever cannot be read. Behind a page that is
    /// damaged it does not go on by itself: so rows are read from the last one back as well, and between
    /// the two documents one by one, as keys tell of them.
    pub(crate) fn each_reachable<E: From<StoreError>>(
        &self,
        mut visit: impl FnMut(Result<Item, StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let visit = &mut visit;
        let plain = |kind: Kind, key: &[u8], row: &[u8]| Item { kind, key: key.to_vec(), row: row.to_vec() };
        self.each_of(Kind::Document, tables::DOCUMENTS, Item::document, visit)?;
        let vectors = |key: &[u8; VECTOR_KEY_BYTES], row: &[u8]| plain(Kind::Vectors, key, row);
        self.each_of(Kind::Vectors, tables::VECTORS, vectors, visit)?;
        let schema = |(id, version): (u32, u32), row: &[u8]| Item::schema(id, version, row);
        self.each_of(Kind::Schema, tables::SCHEMAS, schema, visit)?;
        self.each_of(Kind::Name, tables::NAMES, |name: &[u8], row: &[u8]| plain(Kind::Name, name, row), visit)
    }

    /// Rows of all four tables together, as they say; of one that cannot be opened none.
    pub(crate) fn row_count(&self) -> u64 {
        let len = |len: Result<u64, StoreError>| len.unwrap_or(0);
        [
            len(self.document_count()),
            len(contain(|| Ok(self.table(tables::VECTORS)?.len()?))),
            len(contain(|| Ok(self.table(tables::SCHEMAS)?.len()?))),
            len(contain(|| Ok(self.table(tables::NAMES)?.len()?))),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    fn each_of<K: Key + 'static, E: From<StoreError>>(
        &self,
        kind: Kind,
        definition: TableDefinition<'static, K, Bytes>,
        item: impl Fn(K::SelfType<'_>, &[u8]) -> Item,
        visit: &mut impl FnMut(Result<Item, StoreError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let opened = contain(|| {
            let table = self.table(definition)?;
            let len = table.len()?;
            Ok((table, len))
        });
        let (table, len) = match opened {
            Ok(opened) => opened,
            Err(error) => return visit(Err(error)),
        };
        let swept = sweep(&table, item, &mut |item| visit(Ok(item)))?;
        let mut reached = swept.reached;
        if let Some(damage) = swept.damage {
            visit(Err(damage))?;
            if kind == Kind::Document {
                reached += self.each_document_between(swept.last, swept.first_behind, visit)?;
            }
        }
        if reached < len {
            let reason = format!("table {}: {} of {len} rows cannot be reached", kind.table(), len - reached);
            visit(Err(StoreError::Damaged { reason }))?;
        }
        Ok(())
    }

    /// Visits the documents between two that keys lead to, and says how many.
    fn each_document_between<E: From<StoreError>>(
        &self,
        after: Option<Vec<u8>>,
        before: Option<Vec<u8>>,
        visit: &mut impl FnMut(Result<Item, StoreError>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let number = |key: Vec<u8>| key.try_into().map(u64::from_le_bytes).ok();
        let (after, before) = (after.and_then(number), before.and_then(number));
        let opened = contain(|| Ok((self.table(tables::KEYS)?, self.table(tables::DOCUMENTS)?)));
        let Ok((keys, documents)) = opened else { return Ok(0) };
        let (mut reached, mut failed) = (0, 0);
        let entry = |key: &[u8], entry: &[u8]| KeyEntry::decode(key, entry).ok();
        sweep(&keys, entry, &mut |entry| {
            let doc = match entry {
                Some(KeyEntry { doc, .. })
                    if after.is_none_or(|after| doc.0 > after)
                        && before.is_none_or(|before| doc.0 < before) =>
                {
                    doc.0
                }
                _ => return Ok(()),
            };
            if reached == 0 && failed == FAILED_MAX {
                // What leads to all of them is damaged, and each time redb panics it says so.
                return Ok(());
            }
            let found = contain(|| Ok(documents.get(doc)?.map(|row| Item::document(doc, row.value()))));
            // One that is not there is counted at the end.
            let Ok(Some(item)) = found else {
                failed += 1;
                return Ok(());
            };
            reached += 1;
            visit(Ok(item))
        })?;
        Ok(reached)
    }
}

/// How far the rows of a table could be read from both of its ends.
struct Swept {
    reached: u64,
    /// What is in between, if they did not meet.
    damage: Option<StoreError>,
    /// Key of the last row before it.
    last: Option<Vec<u8>>,
    /// And of the first behind.
    first_behind: Option<Vec<u8>>,
}

/// Visits rows from the first on to one that cannot be read, and then from the last back to it.
fn sweep<K: Key + 'static, T, E>(
    table: &ReadOnlyTable<K, Bytes>,
    make: impl Fn(K::SelfType<'_>, &[u8]) -> T,
    visit: &mut impl FnMut(T) -> Result<(), E>,
) -> Result<Swept, E> {
    let (mut reached, mut last, mut first_behind) = (0, None, None);
    let forward = contain(|| Ok(table.range_owned::<K::SelfType<'_>>(..)?));
    let damage = run(forward, &make, &mut |key, row| {
        reached += 1;
        last = Some(key);
        visit(row)
    })?;
    if damage.is_some() {
        let backward = contain(|| {
            let after = last.as_deref().map_or(Bound::Unbounded, |last| Bound::Excluded(K::from_bytes(last)));
            Ok(table.range_owned::<K::SelfType<'_>>((after, Bound::Unbounded))?.rev())
        });
        // What it ends at was told, or is counted at the end.
        run(backward, &make, &mut |key, row| {
            reached += 1;
            first_behind = Some(key);
            visit(row)
        })?;
    }
    Ok(Swept { reached, damage, last, first_behind })
}

type Row<K> = (OwnedAccessGuard<K>, OwnedAccessGuard<Bytes>);

/// Visits rows up to the first that redb cannot read, and returns what it says then. It is not asked again.
fn run<K: Key + 'static, T, E>(
    rows: Result<impl Iterator<Item = Result<Row<K>, StorageError>>, StoreError>,
    make: impl Fn(K::SelfType<'_>, &[u8]) -> T,
    visit: &mut impl FnMut(Vec<u8>, T) -> Result<(), E>,
) -> Result<Option<StoreError>, E> {
    let mut rows = match rows {
        Ok(rows) => rows,
        Err(error) => return Ok(Some(error)),
    };
    loop {
        let row = contain(|| {
            let Some(row) = rows.next() else { return Ok(None) };
            let (key, row) = row?;
            let bytes = K::as_bytes(&key.value()).as_ref().to_vec();
            Ok(Some((bytes, make(key.value(), row.value()))))
        });
        match row {
            Ok(Some((key, row))) => visit(key, row)?,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        }
    }
}
