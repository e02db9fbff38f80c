//! Opening stores, foreign files and damaged files.

use std::error::Error;
use std::fs;
use std::path::Path;

use redb::{Database, TableDefinition};
use store::{DocId, Field, OpenError, Options, Store, StoreError};

use crate::OPTIONS;
use crate::disks::{Disk, SplitMix64};
use crate::model::Model;

fn open_error(path: &Path) -> OpenError {
    let error = Store::open(path, OPTIONS).expect_err("the store cannot be opened");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "the message does not name the file: {error}"
    );
    error
}

const DOCUMENTS: u32 = 1_000;

fn key(number: u32) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn fill(store: &Store, documents: u32) {
    let mut writer = store.write().unwrap();
    for number in 0..documents {
        let field = Field { name: b"text"[..].into(), value: vec![7; 300].into() };
        writer.put(&key(number), &[field], None).unwrap();
    }
    writer.commit().unwrap();
}

#[test]
fn every_store_has_a_permanent_unique_identity() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    let id = Store::open(&one, OPTIONS).unwrap().id();
    assert_ne!(id, Store::open(&two, OPTIONS).unwrap().id());
    assert_eq!(id, Store::open(&one, Options::default()).unwrap().id());
}

#[test]
fn fails_if_the_directory_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let error = open_error(&directory.path().join("missing").join("store"));
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

#[test]
fn rejects_a_store_that_is_already_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path, OPTIONS).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, OpenError::AlreadyOpen { .. }), "{error}");
    drop(store);
    Store::open(&path, OPTIONS).unwrap();
}

#[test]
fn rejects_foreign_files_without_changing_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let mut zeros_then_text = vec![0; 10_000];
    zeros_then_text[9_999] = b'x';
    for content in [&b"id,title,content\n"[..], b"x", b"redb", &zeros_then_text] {
        fs::write(&path, content).unwrap();
        let error = open_error(&path);
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn rejects_redb_databases_of_other_programs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("theirs.redb");
    let same_name: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
    let other_name: TableDefinition<'_, &str, &str> = TableDefinition::new("settings");
    for table in [other_name, same_name] {
        let database = Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert("a", "b").unwrap();
        transaction.commit().unwrap();
        drop(database);
        let error = open_error(&path);
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    }
}

#[test]
fn a_damaged_entry_is_reported_and_aborts_only_its_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fill(&Store::open(&path, OPTIONS).unwrap(), 3);
    let keys: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(keys).unwrap().insert(&*key(1), &b"nonsense"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let store = Store::open(&path, OPTIONS).unwrap();
    let reader = store.read().unwrap();
    let error = reader.get(&key(1)).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{message}");
    assert!(message.contains("table keys, key \"key 1\""), "{message}");
    assert!(reader.get(&key(2)).unwrap().is_some());
    let results: Vec<_> = reader.keys(b"", None).unwrap().map(|row| row.is_ok()).collect();
    assert_eq!(results, [true, false], "the iterator ends with the error");

    let mut writer = store.write().unwrap();
    writer.put(b"other", &[], None).unwrap();
    assert!(matches!(writer.put(&key(1), &[], None), Err(StoreError::Corrupt { .. })));
    assert!(matches!(writer.put(b"another", &[], None), Err(StoreError::Aborted)));
    assert!(matches!(writer.commit(), Err(StoreError::Aborted)));
    assert_eq!(store.read().unwrap().get(b"other").unwrap(), None);
    let mut writer = store.write().unwrap();
    writer.put(b"other", &[], None).unwrap();
    writer.commit().unwrap();
}

/// Overwrites the state row of a store.
fn overwrite_state(path: &Path, row: &[u8]) {
    let meta: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("meta");
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert(0, row).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn rejects_a_store_of_a_newer_format() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(Store::open(&path, OPTIONS).unwrap());
    // A later format may have any content after the format number.
    overwrite_state(&path, &[9, 0, 0, 0, 1, 2, 3]);
    let error = open_error(&path);
    assert!(matches!(error, OpenError::NewerFormat { found: 9, .. }), "{error}");
    assert!(
        error.to_string().contains("a newer version of Nearfield, format 9; this program reads up to 2"),
        "{error}"
    );
}

#[test]
fn rejects_a_damaged_state_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(Store::open(&path, OPTIONS).unwrap());
    for row in [&[][..], &[1, 0, 0], &[0; 52], &[1; 4], &[1, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5]] {
        overwrite_state(&path, row);
        let error = open_error(&path);
        assert!(
            matches!(error, OpenError::Corrupt { .. } | OpenError::NewerFormat { .. }),
            "{row:?}: {error}"
        );
    }
}

#[test]
fn a_store_that_was_not_closed_opens_at_its_last_commit() {
    let disk = Disk::default();
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    fill(&store, 50);
    let mut writer = store.write().unwrap();
    writer.put(b"never committed", &[], None).unwrap();
    // The content of the disk at this moment, as if the process had been killed.
    let reopened = Store::open_with_backend(Disk::with_bytes(disk.bytes()), OPTIONS).unwrap();
    let reader = reopened.read().unwrap();
    assert_eq!((reader.document_count().unwrap(), reader.last_seq().unwrap()), (50, 50));
    assert_eq!(reader.get(b"never committed").unwrap(), None);
}

/// Reads the whole store by iteration and by key. Every result must match `expected` or be an error.
/// Returns whether there was no error.
fn matches_or_fails(disk: Disk, expected: &Model) -> bool {
    let read = move || -> Result<(), Box<dyn Error>> {
        let mut store = Store::open_with_backend(disk, OPTIONS)?;
        let unverified = store.read().and_then(|reader| Model::read(&reader));
        assert!(unverified.is_err() || unverified.is_ok_and(|read| &read == expected));
        store.verify()?;
        let reader = store.read()?;
        assert_eq!(&Model::read(&reader)?, expected);
        for number in 0..DOCUMENTS {
            let (doc, document) = reader.get(&key(number))?.expect("a document is not lost silently");
            assert_eq!(doc, DocId(u64::from(number) + 1));
            assert_eq!(reader.document(doc)?, Some(document));
        }
        Ok(())
    };
    read().is_ok()
}

/// Writes to a store that may be damaged. Errors are allowed, panics are not.
fn write_to_damaged_store(disk: Disk) -> Result<(), Box<dyn Error>> {
    let store = Store::open_with_backend(disk, OPTIONS)?;
    for round in 0..2 {
        let mut writer = store.write()?;
        for number in (round..DOCUMENTS).step_by(17) {
            let (doc, _) = writer.put(&key(number), &[], Some(1))?;
            writer.touch(doc)?;
            writer.delete(&key(number + 1))?;
        }
        writer.commit()?;
    }
    Ok(())
}

#[test]
fn verification_fails_while_readers_exist() {
    let mut store = Store::open_with_backend(Disk::default(), OPTIONS).unwrap();
    fill(&store, 10);
    let reader = store.read().unwrap();
    assert!(matches!(store.verify(), Err(StoreError::InUse)));
    drop(reader);
    store.verify().unwrap();
    fill(&store, 20);
    assert_eq!(store.read().unwrap().last_seq().unwrap(), 30);
}

#[test]
fn truncated_files_are_errors() {
    let disk = Disk::default();
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    fill(&store, DOCUMENTS);
    let expected = Model::read(&store.read().unwrap()).unwrap();
    drop(store);
    let intact = disk.bytes();
    let mut random = SplitMix64(3);
    for _ in 0..60 {
        let len = usize::try_from(random.next() % intact.len() as u64).unwrap();
        matches_or_fails(Disk::with_bytes(intact[..len].to_vec()), &expected);
    }
}

#[test]
fn flipped_bits_are_errors_or_have_no_effect() {
    let disk = Disk::default();
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    fill(&store, DOCUMENTS);
    let expected = Model::read(&store.read().unwrap()).unwrap();
    drop(store);
    let intact = disk.bytes();
    let mut random = SplitMix64(4);
    let mut detected = 0;
    for _ in 0..150 {
        let mut damaged = intact.clone();
        let at = usize::try_from(random.next() % intact.len() as u64).unwrap();
        damaged[at] ^= 1 << (random.next() % 8);
        if !matches_or_fails(Disk::with_bytes(damaged.clone()), &expected) {
            detected += 1;
        }
        drop(write_to_damaged_store(Disk::with_bytes(damaged)));
    }
    assert!(detected > 15, "only {detected} of 150 flipped bits were detected");
}
