//! The `vectors` table: getting, setting and removing vectors within their blocks.

use std::ops::Bound;

use redb::{AccessGuard, ReadableTable, Table};

use crate::block::{Block, Entry};
use crate::tables::corrupt;
use crate::vector_key::{VECTOR_KEY_BYTES, after_field, field_range};
use crate::{CollectionVersion, DocId, StoreError, StoredVector, VectorKey};

type RowKey = [u8; VECTOR_KEY_BYTES];
type Vectors<'txn> = Table<'txn, &'static RowKey, &'static [u8]>;
type BlockRow<'t> = (AccessGuard<'t, &'static RowKey>, AccessGuard<'t, &'static [u8]>);

pub(crate) fn decode<'r>(row_key: &RowKey, row: &'r [u8]) -> Result<Block<'r>, StoreError> {
    Block::decode(row_key, row).map_err(|reason| {
        let VectorKey { collection, field, doc, passage } = VectorKey::decode(row_key);
        let key = format!(
            "collection {}, version {}, field {field}, from document {}, passage {passage}",
            collection.id, collection.version, doc.0
        );
        corrupt("vectors", key, reason)
    })
}

/// The only row that can contain `key`: the last row of its field whose key is not greater.
fn row_containing<'t>(
    vectors: &'t impl ReadableTable<&'static RowKey, &'static [u8]>,
    key: VectorKey,
) -> Result<Option<BlockRow<'t>>, StoreError> {
    let first = field_range(key.collection, key.field).0;
    Ok(vectors.range::<&RowKey>(&first..=&key.encode())?.next_back().transpose()?)
}

pub(crate) fn get(
    vectors: &impl ReadableTable<&'static RowKey, &'static [u8]>,
    key: VectorKey,
) -> Result<Option<StoredVector>, StoreError> {
    let Some((row_key, row)) = row_containing(vectors, key)? else { return Ok(None) };
    let block = decode(row_key.value(), row.value())?;
    Ok(block.get(key.doc, key.passage).map(Entry::vector))
}

/// Gets a document's vectors in one field, in order of passage. `first` is the lowest possible key of that document
/// and field.
pub(crate) fn get_for_document(
    vectors: &impl ReadableTable<&'static RowKey, &'static [u8]>,
    first: VectorKey,
) -> Result<Vec<(u16, StoredVector)>, StoreError> {
    let field_start = field_range(first.collection, first.field).0;
    let (first, last) = (first.encode(), VectorKey { passage: u16::MAX, ..first }.encode());
    let doc = VectorKey::decode(&first).doc;
    let mut found = Vec::new();
    // Iterates backward, because the row with the first passage may start with an earlier document.
    for row in vectors.range::<&RowKey>(&field_start..=&last)?.rev() {
        let (row_key, row) = row?;
        let block = decode(row_key.value(), row.value())?;
        let of_document = block.entries().iter().filter(|entry| entry.doc == doc);
        found.extend(of_document.map(|entry| (entry.passage, entry.vector())));
        if *row_key.value() <= first {
            break;
        }
    }
    found.sort_unstable_by_key(|(passage, _)| *passage);
    Ok(found)
}

pub(crate) fn set(
    vectors: &mut Vectors<'_>,
    key: VectorKey,
    model: [u8; 16],
    elements: &[u8],
) -> Result<(), StoreError> {
    let entry = Entry { doc: key.doc, passage: key.passage, model, elements };
    let (row_key, lower, upper) = {
        let row = row_containing(vectors, key)?;
        let (row_key, mut block) = match &row {
            Some((row_key, row)) => (*row_key.value(), decode(row_key.value(), row.value())?),
            None => (key.encode(), Block::default()),
        };
        let upper = block.set(entry).map(|upper| {
            let first = upper.entries()[0];
            let upper_key = VectorKey { doc: first.doc, passage: first.passage, ..key }.encode();
            (upper_key, upper.encode(&upper_key))
        });
        (row_key, block.encode(&row_key), upper)
    };
    vectors.insert(&row_key, &*lower)?;
    if let Some((upper_key, upper)) = upper {
        vectors.insert(&upper_key, &*upper)?;
    }
    Ok(())
}

/// Removes a document's vectors in one collection version, or in all.
///
/// Vectors are ordered by collection and field first, so this skips from one non-empty field to the
/// next. That costs one lookup per field, but needs no index that every write would have to maintain.
pub(crate) fn remove(
    vectors: &mut Vectors<'_>,
    within: Option<CollectionVersion>,
    doc: DocId,
) -> Result<(), StoreError> {
    let mut from = match within {
        Some(collection) => field_range(collection, 0).0,
        None => [0; VECTOR_KEY_BYTES],
    };
    loop {
        let next = match vectors.range::<&RowKey>(&from..)?.next() {
            Some(row) => VectorKey::decode(row?.0.value()),
            None => return Ok(()),
        };
        if within.is_some_and(|collection| collection != next.collection) {
            return Ok(());
        }
        remove_in_field(vectors, VectorKey { doc, passage: 0, ..next })?;
        match after_field(next) {
            Some(after) => from = after,
            None => return Ok(()),
        }
    }
}

/// Removes a document's vectors in one field. `first` is the lowest possible key of that document and field.
fn remove_in_field(vectors: &mut Vectors<'_>, first: VectorKey) -> Result<(), StoreError> {
    let start = match row_containing(vectors, first)? {
        Some((row_key, _)) => *row_key.value(),
        None => first.encode(),
    };
    let last = VectorKey { passage: u16::MAX, ..first }.encode();
    let mut changed: Vec<(RowKey, Option<Vec<u8>>)> = Vec::new();
    for row in vectors.range::<&RowKey>(&start..=&last)? {
        let (row_key, row) = row?;
        let row_key = *row_key.value();
        let mut block = decode(&row_key, row.value())?;
        if block.remove(first.doc) {
            changed.push((row_key, (!block.entries().is_empty()).then(|| block.encode(&row_key))));
        }
    }
    for (row_key, row) in changed {
        match row {
            Some(row) => vectors.insert(&row_key, &*row)?,
            None => vectors.remove(&row_key)?,
        };
    }
    Ok(())
}

/// Removes every vector of a collection version.
pub(crate) fn clear(vectors: &mut Vectors<'_>, collection: CollectionVersion) -> Result<(), StoreError> {
    let first = field_range(collection, 0).0;
    let last = field_range(collection, u16::MAX).1;
    vectors.retain_in::<&RowKey, _>((Bound::Included(&first), Bound::Included(&last)), |_, _| false)?;
    Ok(())
}
