//! Rows that are missing although no row is damaged.

use store::{Reader, Store, StoreError};

use crate::OPTIONS;
use crate::disks::Disk;
use crate::page_damage::{empty_leaves, overlay_leaves};
use crate::sample_store::{DOCUMENTS, MODEL, SCHEMA, filled_bytes, key, open};

const ROW_COUNT_MISMATCH: &str = "the number of rows differs from the table's row count";

fn documents(reader: &Reader) -> Result<usize, StoreError> {
    reader.documents()?.try_fold(0, |count, document| document.map(|_| count + 1))
}

fn backup_result(reader: &Reader) -> String {
    reader.back_up(std::io::sink()).map_or_else(|error| error.to_string(), |_| "no damage".to_owned())
}

#[test]
fn detects_pages_whose_row_count_was_damaged_to_zero() {
    for (table, needle) in
        [("names", &b"docs"[..]), ("schemas", SCHEMA), ("documents", b"value 0300"), ("vectors", &MODEL)]
    {
        let mut bytes = filled_bytes();
        empty_leaves(&mut bytes, needle);
        let store = open(bytes);
        let reader = store.read().unwrap();
        let read = match table {
            "names" => reader.names().map(|_| ()),
            "schemas" => reader.schemas().map(|_| ()),
            "documents" => documents(&reader).map(|_| ()),
            // Missing vectors are not an error, because they can be computed again.
            _ => reader
                .vectors(crate::sample_store::COLLECTION, 0)
                .unwrap()
                .try_for_each(|row| row.map(|_| ())),
        };
        let reason = format!("table {table}, key all: {ROW_COUNT_MISMATCH}");
        if table != "vectors" {
            assert!(read.unwrap_err().to_string().contains(&reason), "{table}");
        }
        // Vectors are backed up before schemas, and their schema is missing.
        let expected = if table == "schemas" { "the collection does not exist" } else { &reason };
        assert!(backup_result(&reader).contains(expected), "{table}");
        let directory = tempfile::tempdir().unwrap();
        let report = store.salvage(&directory.path().join("saved"), OPTIONS).unwrap();
        let is_reported = report.damage.iter().map(ToString::to_string).any(|damage| {
            damage.contains(&format!("table {table}: ")) && damage.contains(" rows are unreadable")
        });
        assert!(is_reported && report.lost > 0, "{table}: {:?}", report.damage);
    }
}

#[test]
fn detects_change_pages_whose_row_count_was_damaged_to_zero() {
    let disk = Disk::with_bytes(filled_bytes());
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    let mut writer = store.write().unwrap();
    let deleted = DOCUMENTS / 3..DOCUMENTS;
    for number in deleted.clone() {
        writer.delete(&key(number)).unwrap();
    }
    writer.commit().unwrap();
    store.read().unwrap().verify_references().unwrap();
    drop(store);
    // A page of deletions only, to which no key refers.
    let middle = (deleted.start + deleted.end) / 2;
    let mut bytes = disk.bytes();
    empty_leaves(&mut bytes, &[&middle.to_le_bytes()[..], &[1]].concat());
    let error = open(bytes).read().unwrap().verify_references().unwrap_err().to_string();
    assert!(error.contains(&format!("table changes, key all: {ROW_COUNT_MISMATCH}")), "{error}");
}

#[test]
fn detects_a_page_that_is_read_in_place_of_another() {
    let mut bytes = filled_bytes();
    overlay_leaves(&mut bytes, b"value 0100", b"value 0300");
    let store = open(bytes);
    let reader = store.read().unwrap();
    let reason = "table documents, key all: rows are out of order";
    let error = documents(&reader).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
    assert!(backup_result(&reader).contains(reason));
}
