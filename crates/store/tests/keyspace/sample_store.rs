//! A sample store for tests that damage it.

use store::{CollectionVersion, DocId, Field, NameTarget, Store, VectorKey};

use crate::OPTIONS;
use crate::disks::Disk;

pub(crate) const DOCUMENTS: u64 = 600;
pub(crate) const COLLECTION: CollectionVersion = CollectionVersion { id: 1, version: 1 };
pub(crate) const SCHEMA: &[u8] = b"this is the schema";

pub(crate) const MODEL: [u8; 16] = *b"the sample model";

pub(crate) fn key(number: u64) -> Vec<u8> {
    format!("key {number:04}").into_bytes()
}

/// Writes documents 1 to [`DOCUMENTS`], which span many pages, each with a vector in a collection with a name
/// and two aliases.
pub(crate) fn fill(store: &Store) {
    let mut writer = store.write().unwrap();
    let collection = CollectionVersion { id: writer.allocate_collection_id().unwrap(), version: 1 };
    assert_eq!(collection, COLLECTION);
    writer.set_schema(collection, SCHEMA).unwrap();
    writer.set_name("docs", &NameTarget::Collection(collection)).unwrap();
    // Aliases that sort before and after their target.
    for alias in ["a", "z"] {
        writer.set_name(alias, &NameTarget::Alias("docs".to_owned())).unwrap();
    }
    for number in 1..=DOCUMENTS {
        let value = format!("value {number:04} {}", "x".repeat(290));
        let field = Field { name: b"text"[..].into(), value: value.into_bytes().into() };
        let (doc, _) = writer.put(&key(number), &[field], None).unwrap();
        assert_eq!(doc, DocId(number));
        let vector = VectorKey { collection, field: 0, doc, passage: 0 };
        writer.set_vector(vector, MODEL, format!("vector {number:04}{:60}", "").as_bytes()).unwrap();
    }
    writer.commit().unwrap();
}

/// The bytes of a filled and closed store.
pub(crate) fn filled_bytes() -> Vec<u8> {
    let disk = Disk::default();
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    fill(&store);
    drop(store);
    disk.bytes()
}

/// Opens a store from bytes, without verifying its pages.
pub(crate) fn open(bytes: Vec<u8>) -> Store {
    Store::open_with_backend(Disk::with_bytes(bytes), OPTIONS).unwrap()
}
