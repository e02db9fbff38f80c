//! Salvaging damaged stores: which rows are recovered, and how the losses are reported.

use std::path::Path;

use store::{IntegrityReport, Options, Store};

use crate::OPTIONS;
use crate::disks::Disk;
use crate::page_damage::{break_leaves, flip_each, leaves};
use crate::sample_store::{COLLECTION, DOCUMENTS, SCHEMA, filled_bytes, open};

/// Salvages a store. Returns the report and the new store, which must be free of damage.
fn salvage(damaged: &Store, path: &Path) -> (IntegrityReport, Store) {
    let report = damaged.salvage(path, OPTIONS).unwrap();
    let mut salvaged_store = Store::open(path, OPTIONS).unwrap();
    let check = salvaged_store.check();
    assert!(check.is_clean(), "{:?}", check.damage);
    assert_eq!(check.counts, report.counts, "{:?}", report.damage);
    (report, salvaged_store)
}

/// Opens a store without a cache, so that its disk can be damaged afterwards: in debug builds redb does not open
/// files with such damage.
fn open_on_disk(bytes: Vec<u8>) -> (Disk, Store) {
    let disk = Disk::with_bytes(bytes);
    let store = Store::open_with_backend(disk.clone(), Options { cache_bytes: 0, ..OPTIONS }).unwrap();
    (disk, store)
}

fn messages(report: &IntegrityReport) -> Vec<String> {
    report.damage.iter().map(ToString::to_string).collect()
}

#[test]
fn losing_a_schema_also_removes_its_names_aliases_and_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = filled_bytes();
    flip_each(&mut bytes, SCHEMA);
    let (report, salvaged_store) = salvage(&open(bytes), &directory.path().join("salvaged"));
    let messages = messages(&report).join("\n");
    for lost in [
        "table schemas, key \"\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x01\": the checksum does not match",
        "table names, key \"docs\": its target does not exist",
        "table names, key \"a\": its target does not exist",
        "table names, key \"z\": its target does not exist",
        "table vectors, key collection 1, version 1: the collection does not exist",
    ] {
        assert!(messages.contains(lost), "{lost}: {messages}");
    }
    let counts = report.counts;
    assert_eq!((counts.documents, counts.vectors, counts.schemas, counts.names), (DOCUMENTS, 0, 0, 0));
    assert!(report.lost > 5, "names, the schema and blocks of vectors: {}", report.lost);
    assert_eq!(salvaged_store.read().unwrap().names().unwrap(), []);
    // Salvaging the result again finds no damage.
    let (report, _) = salvage(&salvaged_store, &directory.path().join("again"));
    assert_eq!((report.damage.len(), report.lost), (0, 0), "{:?}", report.damage);
}

/// Maximum number of documents per page.
const PAGE_DOCUMENTS: u64 = 13;

#[test]
fn loses_only_the_documents_of_unreadable_pages() {
    // The first page, a middle one, the last, two with others between them, and four.
    for broken in [&[1][..], &[300], &[DOCUMENTS], &[150, 450], &[1, 2 * PAGE_DOCUMENTS, 300, DOCUMENTS]] {
        let directory = tempfile::tempdir().unwrap();
        let bytes = filled_bytes();
        let pages: Vec<Vec<usize>> =
            broken.iter().map(|number| leaves(&bytes, format!("value {number:04}").as_bytes())).collect();
        assert!(pages.windows(2).all(|pair| pair[0] != pair[1]), "{broken:?}: {pages:?}");
        let (disk, store) = open_on_disk(bytes);
        for number in broken {
            disk.damage(|bytes| break_leaves(bytes, format!("value {number:04}").as_bytes()));
        }
        let (report, salvaged_store) = salvage(&store, &directory.path().join("salvaged"));
        let lost = DOCUMENTS - report.counts.documents;
        let pages = broken.len() as u64;
        assert!((pages..=pages * PAGE_DOCUMENTS).contains(&lost), "{broken:?}: {lost} are lost");
        assert_eq!(salvaged_store.read().unwrap().document_count().unwrap(), report.counts.documents);
        let messages = messages(&report);
        let expected = format!("table documents: {lost} of {DOCUMENTS} rows are unreadable");
        assert!(messages.iter().any(|message| message.contains(&expected)), "{expected}: {messages:?}");
        let blocks = messages.iter().filter(|message| message.contains("table vectors")).count() as u64;
        assert!(blocks > 0, "vectors of lost documents are lost: {messages:?}");
        assert_eq!(report.lost, lost + blocks);
    }
}

#[test]
fn recovers_rows_on_both_sides_of_an_unreadable_page() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, store) = open_on_disk(filled_bytes());
    disk.damage(|bytes| break_leaves(bytes, b"vector 0300"));
    let (report, salvaged_store) = salvage(&store, &directory.path().join("salvaged"));
    let reader = salvaged_store.read().unwrap();
    assert_eq!(reader.document_count().unwrap(), DOCUMENTS);
    let vectors: Vec<u64> = reader.vectors(COLLECTION, 0).unwrap().map(|row| row.unwrap().0.doc.0).collect();
    assert!(vectors.contains(&1) && vectors.contains(&DOCUMENTS) && !vectors.contains(&300), "{vectors:?}");
    assert_eq!(report.counts.vectors, vectors.len() as u64);
    assert!(report.lost > 0, "{:?}", report.damage);
}
