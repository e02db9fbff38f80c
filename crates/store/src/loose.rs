//! Rows of a store being made that lead nowhere, since what they led to was not to be had.

use std::collections::HashSet;

use redb::{ReadableTable, WriteTransaction};

use crate::block::Block;
use crate::error::shown;
use crate::tables::{self, corrupt};
use crate::vector::{VECTOR_KEY_BYTES, VectorKey, after_field, field_range};
use crate::{NameTarget, RecordCounts, StoreError, vectors};

pub(crate) const NOWHERE: &str = "it leads nowhere";
pub(crate) const NO_SCHEMA: &str = "it is of a collection that is not there";

/// What was taken out.
#[derive(Debug, Default)]
pub(crate) struct Loose {
    pub(crate) counts: RecordCounts,
    pub(crate) rows: u64,
    /// A name each, and a collection's vectors each.
    pub(crate) damage: Vec<StoreError>,
}

/// Takes names out that lead nowhere, and computed vectors of collections that are not there. With either the store
/// would not open, or one would find what was never his.
pub(crate) fn remove(transaction: &WriteTransaction) -> Result<Loose, StoreError> {
    let mut loose = Loose::default();
    remove_names(transaction, &mut loose)?;
    remove_vectors(transaction, &mut loose)?;
    Ok(loose)
}

fn remove_names(transaction: &WriteTransaction, loose: &mut Loose) -> Result<(), StoreError> {
    let schemas = transaction.open_table(tables::SCHEMAS)?;
    let mut names = transaction.open_table(tables::NAMES)?;
    let (mut gone, mut collections) = (Vec::new(), HashSet::new());
    // Collections first: what an alias leads to may go.
    for aliases in [false, true] {
        for row in names.iter()? {
            let (name, entry) = row?;
            let key = name.value();
            let (_, target) = NameTarget::decode(key, entry.value())
                .map_err(|reason| corrupt("names", shown(key), reason))?;
            if matches!(target, NameTarget::Alias(_)) != aliases {
                continue;
            }
            if !tables::leads(&schemas, &names, &target)? {
                gone.push((key.to_vec(), NOWHERE));
            } else if let NameTarget::Collection(collection) = target
                && !collections.insert(collection.id)
            {
                gone.push((key.to_vec(), "another name leads to its collection"));
            }
        }
        for (key, reason) in gone.drain(..) {
            names.remove(&*key)?;
            loose.damage.push(corrupt("names", shown(&key), reason));
            loose.counts.names += 1;
            loose.rows += 1;
        }
    }
    Ok(())
}

fn remove_vectors(transaction: &WriteTransaction, loose: &mut Loose) -> Result<(), StoreError> {
    let schemas = transaction.open_table(tables::SCHEMAS)?;
    let mut blocks = transaction.open_table(tables::VECTORS)?;
    let mut from = Some([0; VECTOR_KEY_BYTES]);
    while let Some(first) = from {
        // From one collection to the next.
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
                    .map_err(|reason| corrupt("vectors", shown(key.value()), reason))?;
                loose.counts.vectors += block.entries().len() as u64;
                loose.rows += 1;
            }
            vectors::clear(&mut blocks, collection)?;
            let place = format!("collection {}, version {}", collection.id, collection.version);
            loose.damage.push(corrupt("vectors", place, NO_SCHEMA));
        }
        from = after_field(VectorKey { field: u16::MAX, ..next });
    }
    Ok(())
}
