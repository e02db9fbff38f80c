//! Damaged data directories that are repaired and opened again.

use std::{fs, path::Path, sync::Arc};

use engine::{DataDir, Engine, Metric, Options};

use crate::{
    faults::options,
    world::{BEGIN_MS, FakeClock, blob, hnsw, put, schema, vector},
};

fn open(path: &Path) -> Result<Engine, engine::OpenError> {
    let clock = Arc::new(FakeClock::at(BEGIN_MS));
    Engine::open(Options { data_dir: path.to_owned(), clock, verify_bytes_max: 0, ..options() })
}

/// A directory with a collection of a document, and one without documents.
fn filled(path: &Path) {
    let engine = open(path).unwrap();
    engine.create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    engine.create_collection("others", schema("unlike:", hnsw(), Metric::L2)).unwrap();
    engine.write(vec![put("doc:1", &[("v", &blob(&vector(1)))])]).pop().unwrap().unwrap();
    engine.close();
}

/// Flips a bit of each place of the store's file where the bytes stand.
fn flip_each(path: &Path, needle: &[u8]) {
    let file = path.join("nearfield.redb");
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_repaired_store_opens_without_the_collection_whose_schema_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    filled(path);
    flip_each(path, b"unlike:");
    assert!(matches!(open(path), Err(engine::OpenError::Read { .. })));
    let (findings, _) = DataDir::lock(path).unwrap().repair().unwrap();
    assert_eq!(findings.damage.len(), 2, "the schema and the name: {:?}", findings.damage);
    let engine = open(path).unwrap();
    let names: Vec<String> = engine.collections().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["docs"]);
    assert!(engine.get(b"doc:1").unwrap().is_some());
    engine.close();
}
