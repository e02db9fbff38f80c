//! Histories tell diverged copies of a store apart.

use redb::{Database, ReadableTable as _, TableDefinition};
use store::{HistoryId, OpenError, Store};

use crate::OPTIONS;
use crate::disks::Disk;

fn open(disk: &Disk) -> Store {
    Store::open_with_backend(disk.clone(), OPTIONS).unwrap()
}

/// Another disk with the same content.
fn copy(disk: &Disk) -> Disk {
    Disk::with_bytes(disk.bytes())
}

fn put(store: &Store, keys: &[&str]) {
    let mut writer = store.write().unwrap();
    for key in keys {
        writer.put(key.as_bytes(), &[], None).unwrap();
    }
    writer.commit().unwrap();
}

/// Whether something derived from `from` at its current state may be used with `store`.
fn accepts(store: &Store, (history, seq): (HistoryId, u64)) -> bool {
    store.read().unwrap().was_in_history(history, seq, seq).unwrap()
}

#[test]
fn copies_share_their_past_and_nothing_after_it() {
    let one = Disk::default();
    let store = open(&one);
    let empty = store.last_change();
    put(&store, &["a", "b"]);
    let first = store.last_change();
    drop(store);
    let two = copy(&one);
    let (store_one, store_two) = (open(&one), open(&two));
    assert_eq!(store_one.id(), store_two.id());
    assert_eq!((store_one.last_change(), store_two.last_change()), (first, first), "opening changes nothing");
    put(&store_one, &["c"]);
    put(&store_two, &["d"]);
    let (last_one, last_two) = (store_one.last_change(), store_two.last_change());
    assert_eq!((last_one.1, last_two.1), (3, 3), "both reuse the number");
    for store in [&store_one, &store_two] {
        assert!(accepts(store, empty) && accepts(store, first));
    }
    assert!(accepts(&store_one, last_one) && !accepts(&store_one, last_two));
    assert!(accepts(&store_two, last_two) && !accepts(&store_two, last_one));
}

#[test]
fn what_reaches_beyond_the_common_past_is_not_accepted() {
    let one = Disk::default();
    let store = open(&one);
    put(&store, &["a", "b"]);
    let two = copy(&one);
    put(&store, &["c"]);
    // Begun at change 2, which both have, but with parts of change 3.
    let (history, last) = store.last_change();
    assert!(store.read().unwrap().was_in_history(history, 2, last).unwrap());
    let other = open(&two);
    put(&other, &["d", "e"]);
    let reader = other.read().unwrap();
    assert!(reader.was_in_history(history, 2, 2).unwrap());
    assert!(!reader.was_in_history(history, 2, last).unwrap());
    assert!(!reader.was_in_history(history, 3, 3).unwrap());
}

#[test]
fn an_older_copy_of_the_file_rejects_what_came_after_it() {
    let disk = Disk::default();
    put(&open(&disk), &["a"]);
    let older = copy(&disk);
    let store = open(&disk);
    put(&store, &["b", "c"]);
    let last = store.last_change();
    let restored = open(&older);
    assert!(!accepts(&restored, last));
    put(&restored, &["x", "y", "z"]);
    assert!(!accepts(&restored, last));
}

#[test]
fn trimming_keeps_the_history_of_what_is_still_used() {
    let disk = Disk::default();
    let mut derived = Vec::new();
    for number in 0..20 {
        let store = open(&disk);
        put(&store, &[&format!("{number}")]);
        derived.push(store.last_change());
    }
    let store = open(&disk);
    let mut writer = store.write().unwrap();
    writer.trim_changes(10).unwrap();
    writer.commit().unwrap();
    assert!(derived.iter().filter(|change| change.1 >= 10).all(|change| accepts(&store, *change)));
    assert!(!accepts(&store, derived[8]), "its history was removed");
    drop(store);
    let mut store = open(&disk);
    assert!(store.check().is_clean());
    assert!(accepts(&store, derived[9]), "the history of change 10");
}

#[test]
fn a_change_of_names_only_begins_no_history() {
    let disk = Disk::default();
    let store = open(&disk);
    put(&store, &["a"]);
    let last = store.last_change();
    drop(store);
    let store = open(&disk);
    let mut writer = store.write().unwrap();
    writer.allocate_collection_id().unwrap();
    writer.commit().unwrap();
    assert_eq!(store.last_change(), last);
}

const META: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("meta");
const HISTORIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("histories");

/// Rewrites the state of a store in the first format.
fn downgrade(path: &std::path::Path) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        let mut row = meta.get(0).unwrap().unwrap().value()[..48].to_vec();
        row[0] = 1;
        let sum = crc32fast::hash(&[b"nearfield store", &row[..]].concat());
        row.extend(sum.to_le_bytes());
        meta.insert(0, &*row).unwrap();
    }
    transaction.delete_table(HISTORIES).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_store_of_the_first_format_is_read_unchanged_and_converted_by_the_first_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    put(&Store::open(&path, OPTIONS).unwrap(), &["a", "b"]);
    downgrade(&path);

    let mut store = Store::open(&path, OPTIONS).unwrap();
    assert_eq!(store.outdated_format(), Some(1));
    assert!(store.check().is_clean());
    assert_eq!(store.read().unwrap().last_seq().unwrap(), 2);
    assert!(!accepts(&store, store.last_change()), "copies may have diverged");
    drop(store);
    let store = Store::open(&path, OPTIONS).unwrap();
    assert_eq!(store.outdated_format(), Some(1), "reading does not convert");

    store.upgrade().unwrap();
    assert_eq!(store.outdated_format(), None);
    assert!(accepts(&store, store.last_change()));
    put(&store, &["a", "c"]);
    drop(store);
    let mut store = Store::open(&path, OPTIONS).unwrap();
    assert!(store.check().is_clean());
    store.read().unwrap().verify_references().unwrap();
    assert_eq!(store.read().unwrap().document_count().unwrap(), 3);
}

#[test]
fn two_conversions_of_the_same_store_begin_different_histories() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    put(&Store::open(&one, OPTIONS).unwrap(), &["a"]);
    downgrade(&one);
    std::fs::copy(&one, &two).unwrap();
    let [one, two] = [one, two].map(|path| Store::open(&path, OPTIONS).unwrap());
    one.upgrade().unwrap();
    two.upgrade().unwrap();
    assert!(!accepts(&one, two.last_change()) && !accepts(&two, one.last_change()));
}

#[test]
fn a_store_with_unknown_features_needs_a_newer_version() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(Store::open(&path, OPTIONS).unwrap());
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        let mut row = meta.get(0).unwrap().unwrap().value().to_vec();
        row.truncate(row.len() - 4);
        row[48] = 4;
        let sum = crc32fast::hash(&[b"nearfield store", &row[..]].concat());
        row.extend(sum.to_le_bytes());
        meta.insert(0, &*row).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(&path, OPTIONS).unwrap_err();
    assert!(matches!(error, OpenError::UnknownFeatures { features: 4, .. }), "{error}");
    assert!(error.to_string().contains("a newer version of Nearfield"), "{error}");
}
