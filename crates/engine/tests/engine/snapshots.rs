//! Snapshots are verified before use and never required.

use std::{fs, path::PathBuf};

use engine::{Metric, Op, Query};

use crate::test_engine::*;

/// Two collections with 60 documents each.
fn test_engine() -> TestEngine {
    let test = TestEngine::new();
    for name in ["a", "b"] {
        test.engine().create_collection(name, schema(name, hnsw(), Metric::Cosine)).unwrap();
        let ops: Vec<Op> = (0..60u64)
            .map(|number| {
                let year = number.to_string();
                let values: &[(&str, &[u8])] =
                    &[("category", b"x,y"), ("year", year.as_bytes()), ("v", &blob(&vector(number)))];
                put_until(&format!("{name}{number}"), values, BEGIN_MS + 1_000_000)
            })
            .collect();
        assert!(test.engine().write(ops).iter().all(Result::is_ok));
    }
    test.settle();
    test
}

fn results(test: &TestEngine) -> Vec<String> {
    let mut results = Vec::new();
    for name in ["a", "b"] {
        let filter = test.filter(name, "@year:[10 40] @category:{y}");
        let target = vector(7);
        let exact = Query { filter: Some(&filter), ..query(name, &target, 100).exact(true) };
        results.extend(test.keys(&exact));
        results.push(test.engine().count(name, None).unwrap().to_string());
    }
    results
}

fn files(test: &TestEngine) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(test.options.data_dir.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn a_damaged_snapshot_is_detected_and_discarded() {
    let mut test = test_engine();
    let before = results(&test);
    test.close();
    let path = files(&test).remove(0);
    assert!(path.ends_with("000001-000001.snapshot"), "{path:?}");
    let good = fs::read(&path).unwrap();
    let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
    for position in (0..48).chain((48..good.len()).step_by(good.len() / 40)) {
        let mut bytes = good.clone();
        bytes[position] ^= 1 << (position % 8);
        damaged.push((format!("flipped in byte {position} of {}", good.len()), bytes));
    }
    for len in (0..20).chain((20..good.len()).step_by(good.len() / 20)).chain([good.len() - 1]) {
        damaged.push((format!("cut to {len} of {} bytes", good.len()), good[..len].to_vec()));
    }
    damaged.push(("longer".to_owned(), [&good[..], b"x"].concat()));
    for (how, bytes) in damaged {
        fs::write(&path, bytes).unwrap();
        test.open();
        assert_eq!(results(&test), before, "{how}");
        let warnings = test.engine().warnings();
        assert_eq!(warnings.len(), 1, "{how}: {warnings:?}");
        assert!(
            warnings[0].starts_with("the snapshot of collection 1, version 1, is not used"),
            "{how}: {warnings:?}"
        );
        test.close();
    }
    test.open();
    assert_eq!(test.engine().warnings(), [] as [&str; 0], "a valid one was written");
}

#[test]
fn a_snapshot_of_another_collection_or_store_is_not_used() {
    let mut test = test_engine();
    let before = results(&test);
    test.close();
    let [a, b] = files(&test).try_into().unwrap();
    fs::copy(&b, &a).unwrap();
    test.open();
    assert_eq!(results(&test), before);
    assert!(test.engine().warnings()[0].ends_with("it belongs to another collection"));
    test.close();

    let mut other = test_engine();
    other.close();
    fs::copy(&files(&other)[0], &a).unwrap();
    test.open();
    assert_eq!(results(&test), before);
    assert!(test.engine().warnings()[0].ends_with("it belongs to another store"));
}

#[test]
fn a_snapshot_older_than_the_change_log_is_not_used() {
    let mut test = test_engine();
    test.close();
    let old = fs::read(&files(&test)[0]).unwrap();
    test.open();
    test.delete("a7");
    test.delete("b7");
    let before = results(&test);
    test.close();
    fs::write(&files(&test)[0], old).unwrap();
    test.open();
    assert_eq!(results(&test), before);
    let warnings = test.engine().warnings();
    assert!(warnings[0].contains("changes up to 122 were trimmed"), "{warnings:?}");
}

#[test]
fn leftover_files_are_removed() {
    let mut test = test_engine();
    test.close();
    let directory = test.options.data_dir.join("snapshots");
    fs::write(directory.join("000001-000001.unfinished"), b"half").unwrap();
    fs::write(directory.join("000009-000001.snapshot"), b"of a dropped collection").unwrap();
    test.open();
    assert_eq!(files(&test).len(), 2);
    test.engine().drop_collection("a", engine::DropMode::KeepDocuments).unwrap();
    let remaining = files(&test);
    assert_eq!(remaining.len(), 1);
    assert!(remaining[0].ends_with("000002-000001.snapshot"));
}

#[test]
fn a_snapshot_is_written_after_enough_changes() {
    let mut test = TestEngine::new();
    test.engine().create_collection("docs", schema("", hnsw(), Metric::L2)).unwrap();
    let ops: Vec<Op> = (0..10_000).map(|number| put(&number.to_string(), &[("year", b"1")])).collect();
    assert!(test.engine().write(ops).iter().all(Result::is_ok));
    wait_until("no snapshot is written", || {
        files(&test).iter().any(|path| path.extension().is_some_and(|extension| extension == "snapshot"))
    });
    test.put("one more", &[]);
    test.crash();
    assert_eq!(test.engine().warnings(), [] as [&str; 0]);
    assert_eq!(test.engine().count("docs", None).unwrap(), 10_001);
}
