//! Damaged data directories are repaired and opened again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{DataDir, Engine, Metric, Options};

use crate::{
    faults::options,
    pages::{empty_leaves, flip_each, leaves},
    test_engine::{BEGIN_MS, FakeClock, blob, hnsw, put, schema, vector},
};

fn open(path: &Path) -> Result<Engine, engine::OpenError> {
    let clock = Arc::new(FakeClock::at(BEGIN_MS));
    Engine::open(Options { data_dir: path.to_owned(), clock, verify_bytes_max: 0, ..options() })
}

/// A directory with one collection of one document, and one without documents.
fn filled(path: &Path) {
    let engine = open(path).unwrap();
    engine.create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    engine.create_collection("others", schema("unlike:", hnsw(), Metric::L2)).unwrap();
    engine.write(vec![put("doc:1", &[("v", &blob(&vector(1)))])]).pop().unwrap().unwrap();
    engine.close();
}

/// Changes the bytes of the store file.
fn damage(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let file = path.join("nearfield.redb");
    let mut bytes = fs::read(&file).unwrap();
    how(&mut bytes);
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_repaired_store_opens_without_the_collection_whose_schema_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    filled(path);
    damage(path, |bytes| flip_each(bytes, b"unlike:"));
    assert!(matches!(open(path), Err(engine::OpenError::Read { .. })));
    let (report, _) = DataDir::lock(path).unwrap().repair().unwrap();
    assert_eq!(report.damage.len(), 2, "the schema and the name: {:?}", report.damage);
    let engine = open(path).unwrap();
    let names: Vec<String> = engine.collections().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["docs"]);
    assert!(engine.get(b"doc:1").unwrap().is_some());
    engine.close();
}

/// The error with which the store does not open.
fn open_error(path: &Path) -> String {
    open(path).expect_err("this store is damaged").to_string()
}

#[test]
fn an_emptied_page_of_names_loses_no_collection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    filled(path);
    let intact = fs::read(path.join("nearfield.redb")).unwrap();
    damage(path, |bytes| empty_leaves(bytes, b"others"));
    assert!(
        open_error(path)
            .contains("table names, key all: the number of rows differs from the table's row count")
    );
    // Undamaged data is unchanged, although schemas without a name are otherwise removed.
    damage(path, |bytes| {
        for leaf in leaves(&intact, b"others") {
            bytes[leaf..leaf + 4].copy_from_slice(&intact[leaf..leaf + 4]);
        }
    });
    let engine = open(path).unwrap();
    assert_eq!(engine.collections().len(), 2);
    engine.close();
}

#[test]
fn an_emptied_page_of_documents_is_detected_with_and_without_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    filled(path);
    let snapshots = path.join("snapshots");
    let saved: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(&snapshots)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert_eq!(saved.len(), 2);
    let engine = open(path).unwrap();
    let put = put("doc:2", &[("v", &blob(&vector(2))), ("title", b"after the snapshot")]);
    engine.write(vec![put]).pop().unwrap().unwrap();
    engine.close();
    drop(engine);
    for (path, bytes) in &saved {
        fs::write(path, bytes).unwrap();
    }
    damage(path, |bytes| empty_leaves(bytes, b"after the snapshot"));
    let change_error = open_error(path);
    let reason = "table changes, key 2: the written document is missing";
    assert!(change_error.contains(reason), "{change_error}");
    fs::remove_dir_all(&snapshots).unwrap();
    let document_error = open_error(path);
    let reason = "table documents, key all: the number of rows differs from the table's row count";
    assert!(document_error.contains(reason), "{document_error}");
}
