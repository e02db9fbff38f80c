//! What is saved of a damaged store, and what is said of the rest.

use std::path::Path;

use store::{Findings, Store};

use crate::OPTIONS;
use crate::damaged::{DOCUMENTS, SCHEMA, filled, open};
use crate::pages::flip_each;

/// What was found, and the new store, with which nothing is wrong.
fn salvaged(damaged: &Store, path: &Path) -> (Findings, Store) {
    let findings = damaged.salvage(path, OPTIONS).unwrap();
    let mut saved = Store::open(path, OPTIONS).unwrap();
    let left = saved.check();
    assert!(left.are_clean(), "{:?}", left.damage);
    assert_eq!(left.counts, findings.counts, "{:?}", findings.damage);
    (findings, saved)
}

fn messages(findings: &Findings) -> Vec<String> {
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
    assert_eq!(saved.read().unwrap().names().unwrap(), []);
    // Nothing is left to be repaired.
    let (found, _) = salvaged(&saved, &directory.path().join("again"));
    assert_eq!(found.damage.len(), 0, "{:?}", found.damage);
}
