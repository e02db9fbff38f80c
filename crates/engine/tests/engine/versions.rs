//! Documents by number, each with a version in its fields, to check which of them survive a failure.

use std::collections::BTreeMap;

use engine::{Engine, Expected, Op};

use crate::test_engine::{QueryExt as _, blob, keys, put, query, vector};

/// Number of keys.
pub(crate) const KEYS: u64 = 24;
/// Sessions per run.
pub(crate) const SESSIONS: usize = 3;
/// Maximum number of documents per group of writes.
pub(crate) const GROUP: u64 = 4;

pub(crate) fn key(number: u64) -> String {
    format!("doc:{number}")
}

/// Writes a version of a document, or deletes the document.
pub(crate) fn op(number: u64, version: Option<u64>) -> Op {
    match version {
        Some(version) => {
            let year = version.to_string();
            put(&key(number), &[("year", year.as_bytes()), ("v", &blob(&vector(version)))])
        }
        None => Op::Delete { key: key(number).into(), expected: Expected::Any },
    }
}

/// The current version of a document, all of whose fields must agree.
pub(crate) fn version(engine: &Engine, number: u64, how: &str) -> Option<u64> {
    let found = engine.get(key(number).as_bytes()).unwrap_or_else(|error| panic!("{how}: {error}"));
    found.map(|document| {
        let field = |name: &[u8]| document.fields.iter().find(|field| *field.name == *name).unwrap();
        let version = str::from_utf8(&field(b"year").value).unwrap().parse().unwrap();
        assert_eq!(
            *field(b"v").value,
            blob(&vector(version)),
            "{how}: the fields of document {number} have different versions"
        );
        version
    })
}

/// Checks that graph and exact searches near `target` find exactly the existing documents, nearest first.
pub(crate) fn check_search(engine: &Engine, live: &BTreeMap<u64, u64>, target: &[f32], how: &str) {
    let distance = |version: u64| -> f64 {
        let pairs = target.iter().zip(vector(version)).map(|(a, b)| f64::from(a - b));
        pairs.map(|difference| difference * difference).sum()
    };
    let mut nearest: Vec<(u64, f64)> =
        live.iter().map(|(number, version)| (*number, distance(*version))).collect();
    nearest.sort_by(|a, b| a.1.total_cmp(&b.1));
    let expected: Vec<String> = nearest.iter().map(|(number, _)| key(*number)).collect();
    for exact in [true, false] {
        let request = query("docs", target, KEYS as usize).exact(exact);
        let found = keys(&engine.search(&request).unwrap());
        assert_eq!(found, expected, "{how}, exact {exact}: {:?}", engine.warnings());
    }
}

/// Number of power losses to try: `FAULT_SEEDS`, or this default.
pub(crate) fn seeds(default: u64) -> u64 {
    std::env::var("FAULT_SEEDS").map_or(default, |text| text.parse().expect("FAULT_SEEDS is a number"))
}
