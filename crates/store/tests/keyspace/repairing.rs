//! What is saved of a damaged store, and what is said of the rest.

use std::path::Path;

use store::{IntegrityReport, Options, Store};

use crate::OPTIONS;
use crate::damaged::{COLLECTION, DOCUMENTS, SCHEMA, filled, open};
use crate::disks::Disk;
use crate::pages::{break_leaves, flip_each, leaves};

/// What was found, and the new store, with which nothing is wrong.
fn salvaged(damaged: &Store, path: &Path) -> (IntegrityReport, Store) {
    let findings = damaged.salvage(path, OPTIONS).unwrap();
    let mut saved = Store::open(path, OPTIONS).unwrap();
    let left = saved.check();
    assert!(left.is_clean(), "{:?}", left.damage);
    assert_eq!(left.counts, findings.counts, "{:?}", findings.damage);
    (findings, saved)
}

/// An open store that reads its disk each time: redb built for tests opens none with such pages.
fn open_on_disk(bytes: Vec<u8>) -> (Disk, Store) {
    let disk = Disk::with_bytes(bytes);
    let store = Store::open_with_backend(disk.clone(), Options { cache_bytes: 0, ..OPTIONS }).unwrap();
    (disk, store)
}

fn messages(findings: &IntegrityReport) -> Vec<String> {
    findings.damage.iter().map(ToString::to_string).collect()
}

#[test]
fn a_lost_schema_takes_along_what_leads_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = filled();
    flip_each(&mut bytes, SCHEMA);
    let (found, saved) = salvaged(&open(bytes), &directory.path().join("saved"));
    let messages = messages(&found).join("\n");
    for lost in [
        "table schemas, key \"\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x01\": checksum does not match",
        "table names, key \"docs\": it leads nowhere",
        "table names, key \"a\": it leads nowhere",
        "table names, key \"z\": it leads nowhere",
        "table vectors, key collection 1, version 1: it is of a collection that is not there",
    ] {
        assert!(messages.contains(lost), "{lost}: {messages}");
    }
    let counts = found.counts;
    assert_eq!((counts.documents, counts.vectors, counts.schemas, counts.names), (DOCUMENTS, 0, 0, 0));
    assert!(found.lost > 5, "names, the schema and blocks of vectors: {}", found.lost);
    assert_eq!(saved.read().unwrap().names().unwrap(), []);
    // Nothing is left to be repaired.
    let (found, _) = salvaged(&saved, &directory.path().join("again"));
    assert_eq!((found.damage.len(), found.lost), (0, 0), "{:?}", found.damage);
}

/// Documents on a page, of which there are more than [`DOCUMENTS`] / 50.
const PAGE_DOCUMENTS: u64 = 13;

#[test]
fn only_the_documents_of_pages_that_cannot_be_read_are_lost() {
    // The first page, one in the middle, the last, and two with others between them.
    for broken in [&[1][..], &[300], &[DOCUMENTS], &[150, 450], &[1, 2 * PAGE_DOCUMENTS, 300, DOCUMENTS]] {
        let directory = tempfile::tempdir().unwrap();
        let bytes = filled();
        let pages: Vec<Vec<usize>> =
            broken.iter().map(|number| leaves(&bytes, format!("value {number:04}").as_bytes())).collect();
        assert!(pages.windows(2).all(|pair| pair[0] != pair[1]), "{broken:?}: {pages:?}");
        let (disk, store) = open_on_disk(bytes);
        for number in broken {
            disk.damage(|bytes| break_leaves(bytes, format!("value {number:04}").as_bytes()));
        }
        let (found, saved) = salvaged(&store, &directory.path().join("saved"));
        let lost = DOCUMENTS - found.counts.documents;
        let pages = broken.len() as u64;
        assert!((pages..=pages * PAGE_DOCUMENTS).contains(&lost), "{broken:?}: {lost} are lost");
        assert_eq!(saved.read().unwrap().document_count().unwrap(), found.counts.documents);
        let messages = messages(&found);
        let said = format!("table documents: {lost} of {DOCUMENTS} rows cannot be reached");
        assert!(messages.iter().any(|message| message.contains(&said)), "{said}: {messages:?}");
        let blocks = messages.iter().filter(|message| message.contains("table vectors")).count() as u64;
        assert!(blocks > 0, "vectors of the documents lost: {messages:?}");
        assert_eq!(found.lost, lost + blocks);
    }
}

#[test]
fn rows_behind_a_page_that_cannot_be_read_are_saved_without_keys_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, store) = open_on_disk(filled());
    disk.damage(|bytes| break_leaves(bytes, b"vector 0300"));
    let (found, saved) = salvaged(&store, &directory.path().join("saved"));
    let reader = saved.read().unwrap();
    assert_eq!(reader.document_count().unwrap(), DOCUMENTS);
    let vectors: Vec<u64> = reader.vectors(COLLECTION, 0).unwrap().map(|row| row.unwrap().0.doc.0).collect();
    assert!(vectors.contains(&1) && vectors.contains(&DOCUMENTS) && !vectors.contains(&300), "{vectors:?}");
    assert_eq!(found.counts.vectors, vectors.len() as u64);
    assert!(found.lost > 0, "{:?}", found.damage);
}
