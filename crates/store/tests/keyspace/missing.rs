//! Rows that are not where they were, though no row is damaged.

use store::{Reader, Store, StoreError};

use crate::OPTIONS;
use crate::damaged::{DOCUMENTS, MODEL, SCHEMA, filled, key, open};
use crate::disks::Disk;
use crate::pages::{empty_leaves, overlay_leaves};

const COUNT: &str = "there are more or fewer rows than it says";

fn documents(reader: &Reader) -> Result<usize, StoreError> {
    reader.documents()?.try_fold(0, |count, document| document.map(|_| count + 1))
}

fn backed_up(reader: &Reader) -> String {
    reader.back_up(std::io::sink()).map_or_else(|error| error.to_string(), |_| "no damage".to_owned())
}

#[test]
fn rows_of_a_page_that_says_it_has_none_are_missed() {
    for (table, needle) in
        [("names", &b"docs"[..]), ("schemas", SCHEMA), ("documents", b"value 0300"), ("vectors", &MODEL)]
    {
        let mut bytes = filled();
        empty_leaves(&mut bytes, needle);
        let store = open(bytes);
        let reader = store.read().unwrap();
        let read = match table {
            "names" => reader.names().map(|_| ()),
            "schemas" => reader.schemas().map(|_| ()),
            "documents" => documents(&reader).map(|_| ()),
            // Those that are missing are computed again.
            _ => reader.vectors(crate::damaged::COLLECTION, 0).unwrap().try_for_each(|row| row.map(|_| ())),
        };
        let reason = format!("table {table}, key all: {COUNT}");
        if table != "vectors" {
            assert!(read.unwrap_err().to_string().contains(&reason), "{table}");
        }
        // Vectors are backed up first, and miss the schema.
        let told = if table == "schemas" { "it is of a collection that is not there" } else { &reason };
        assert!(backed_up(&reader).contains(told), "{table}");
        let directory = tempfile::tempdir().unwrap();
        let found = store.salvage(&directory.path().join("saved"), OPTIONS).unwrap();
        let said = found.damage.iter().map(ToString::to_string).any(|damage| {
            damage.contains(&format!("table {table}: ")) && damage.contains(" rows cannot be reached")
        });
        assert!(said && found.lost > 0, "{table}: {:?}", found.damage);
    }
}

#[test]
fn changes_of_a_page_that_says_it_has_none_are_missed() {
    let disk = Disk::with_bytes(filled());
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    let mut writer = store.write().unwrap();
    let deleted = DOCUMENTS / 3..DOCUMENTS;
    for number in deleted.clone() {
        writer.delete(&key(number)).unwrap();
    }
    writer.commit().unwrap();
    store.read().unwrap().verify_references().unwrap();
    drop(store);
    // A page of deletions alone, which no key tells of.
    let middle = (deleted.start + deleted.end) / 2;
    let mut bytes = disk.bytes();
    empty_leaves(&mut bytes, &[&middle.to_le_bytes()[..], &[1]].concat());
    let refusal = open(bytes).read().unwrap().verify_references().unwrap_err().to_string();
    assert!(refusal.contains(&format!("table changes, key all: {COUNT}")), "{refusal}");
}

#[test]
fn a_page_that_is_read_in_place_of_another_is_noticed() {
    let mut bytes = filled();
    overlay_leaves(&mut bytes, b"value 0100", b"value 0300");
    let store = open(bytes);
    let reader = store.read().unwrap();
    let reason = "table documents, key all: rows do not stand in their order";
    let refusal = documents(&reader).unwrap_err().to_string();
    assert!(refusal.contains(reason), "{refusal}");
    assert!(backed_up(&reader).contains(reason));
}
