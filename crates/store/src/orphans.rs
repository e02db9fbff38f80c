//! Orphans: rows of a rebuilt store that refer to a row which could not be recovered.

use std::collections::HashSet;

use redb::{ReadableTable, WriteTransaction};

use crate::block::Block;
use crate::error::printable;
use crate::tables::{self, corrupt};
use crate::vector_key::{VECTOR_KEY_BYTES, VectorKey, after_field, field_range};
use crate::{NameTarget, RecordCounts, StoreError, vector_table};

pub(crate) const UNKNOWN_TARGET: &str = "its target does not exist";
pub(crate) const UNKNOWN_COLLECTION: &str = "the collection does not exist";

/// The removed rows.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    pub(crate) counts: RecordCounts,
    pub(crate) rows: u64,
    /// One error per removed name, and one per collection whose vectors were removed.
    pub(crate) damage: Vec<StoreError>,
}

/// Removes names whose target does not exist, and computed vectors of collections that do not exist. Dangling
/// names would prevent the engine from opening; orphaned vectors could be attributed to another collection.
pub(crate) fn remove(transaction: &WriteTransaction) -> Result<Orphans, StoreError> {
    let mut orphans = Orphans::default();
    remove_names(transaction, &mut orphans)?;
    remove_vectors(transaction, &mut orphans)?;
    Ok(orphans)
}

fn remove_names(transaction: &WriteTransaction, orphans: &mut Orphans) -> Result<(), StoreError> {
    let schemas = transaction.open_table(tables::SCHEMAS)?;
    let mut names = transaction.open_table(tables::NAMES)?;
    let (mut orphaned, mut collections) = (Vec::new(), HashSet::new());
    // Collections first, because removing a collection can orphan an alias.
    for aliases in [false, true] {
        for row in names.iter()? {
            let (name, entry) = row?;
            let key = name.value();
            let (_, target) = NameTarget::decode(key, entry.value())
                .map_err(|reason| corrupt("names", printable(key), reason))?;
            if matches!(target, NameTarget::Alias(_)) != aliases {
                continue;
            }
            if !tables::target_exists(&schemas, &names, &target)? {
                orphaned.push((key.to_vec(), UNKNOWN_TARGET));
            } else if let NameTarget::Collection(collection) = target
                && !collections.insert(collection.id)
            {
                orphaned.push((key.to_vec(), "another name refers to the same collection"));
            }
        }
        for (key, reason) in orphaned.drain(..) {
            names.remove(&*key)?;
            orphans.damage.push(corrupt("names", printable(&key), reason));
            orphans.counts.names += 1;
            orphans.rows += 1;
        }
    }
    Ok(())
}

fn remove_vectors(transaction: &WriteTransaction, orphans: &mut Orphans) -> Result<(), StoreError> {
    let schemas = transaction.open_table(tables::SCHEMAS)?;
    let mut blocks = transaction.open_table(tables::VECTORS)?;
    let mut from = Some([0; VECTOR_KEY_BYTES]);
    while let Some(first) = from {
        // Skips from one collection to the next.
        let next = match blocks.range::<&[u8; VECTOR_KEY_BYTES]>(&first..)?.next() {
            Some(row) => VectorKey::decode(row?.0.value()),
            None => break,
        };
        let collection = next.collection;
        if schemas.get((collection.id, collection.version))?.is_none() {
            let (first, last) = (field_range(collection, 0).0, field_range(collection, u16::MAX).1);
            for row in blocks.range::<&[u8; VECTOR_KEY_BYTES]>(&first..=&last)? {
                let (key, row) = row?;
                let block = Block::decode(key.value(), row.value())
                    .map_err(|reason| corrupt("vectors", printable(key.value()), reason))?;
                orphans.counts.vectors += block.entries().len() as u64;
                orphans.rows += 1;
            }
            vector_table::clear(&mut blocks, collection)?;
            let key = format!("collection {}, version {}", collection.id, collection.version);
            orphans.damage.push(corrupt("vectors", key, UNKNOWN_COLLECTION));
        }
        from = after_field(VectorKey { field: u16::MAX, ..next });
    }
    Ok(())
}
