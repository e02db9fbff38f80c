//! The state after closing, after a kill, and for a second process.

use std::fs;

use engine::{Engine, Expected, FieldKind, Metric, Op, OpenError, Quantization, Query, WriteError};

use crate::test_engine::*;

fn test_engine() -> TestEngine {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    test
}

fn fill(test: &TestEngine, numbers: impl Iterator<Item = u64>) {
    let ops: Vec<Op> = numbers
        .map(|number| {
            let category = format!("c{}", number % 3);
            let values: &[(&str, &[u8])] = &[
                ("category", category.as_bytes()),
                ("year", &number.to_string().into_bytes()),
                ("v", &blob(&vector(number))),
            ];
            put(&format!("doc:{number}"), values)
        })
        .collect();
    assert!(test.engine().write(ops).iter().all(Result::is_ok));
}

/// Results of searches, filters and scrolls as text, for comparison.
fn results(test: &TestEngine) -> Vec<String> {
    let mut results = vec![format!("{:?}", test.scroll("docs", None))];
    for text in ["*", "@category:{c1}", "-@category:{c1}", "@year:[50 80]", "@year:[(50 (51]"] {
        let filter = test.filter("docs", text);
        for number in [3, 77] {
            let target = vector(number);
            let exact = Query { filter: Some(&filter), ..query("docs", &target, 25).exact(true) };
            let hits = test.engine().search(&exact).unwrap().hits;
            results.push(format!("{text}: {hits:?}"));
        }
    }
    let info = test.engine().collection("docs").unwrap();
    results.push(format!("{} documents, {} vectors", info.documents, info.vectors));
    results
}

#[test]
fn all_data_survives_with_and_without_snapshots_and_after_a_kill() {
    let mut test = test_engine();
    fill(&test, 0..120);
    for number in (0..120).step_by(7) {
        test.delete(&format!("doc:{number}"));
    }
    let before = results(&test);

    test.crash();
    assert_eq!(results(&test), before, "killed before there was a snapshot");
    test.settle();
    test.reopen();
    assert_eq!(results(&test), before, "closed and opened");
    test.close();
    fs::remove_dir_all(test.options.data_dir.join("snapshots")).unwrap();
    test.open();
    assert_eq!(results(&test), before, "opened without snapshot");
    assert_eq!(test.engine().warnings(), [] as [&str; 0]);
}

#[test]
fn changes_since_a_snapshot_are_applied_after_loading_it() {
    let mut test = test_engine();
    fill(&test, 0..100);
    test.settle();
    test.reopen();
    // Updates, deletes whose ordinals are reused, documents that lose their vector, new ones.
    fill(&test, (0..100).step_by(9));
    for number in (1..100).step_by(5) {
        test.delete(&format!("doc:{number}"));
    }
    fill(&test, 200..240);
    fill(&test, [6, 11].into_iter());
    test.put("doc:2", &[("category", b"c1")]);
    test.delete("doc:3");
    test.put("doc:3", &[("v", &blob(&vector(333)))]);
    let before = results(&test);
    test.crash();
    assert_eq!(results(&test), before);
    assert_eq!(test.engine().warnings(), [] as [&str; 0]);
    test.reopen();
    assert_eq!(results(&test), before);
}

#[test]
fn expected_sequence_numbers_hold_across_a_restart() {
    let mut test = test_engine();
    let written = test.put("doc:1", &[("title", b"x")]);
    test.reopen();
    let stale = Op::Delete { key: b"doc:1".to_vec(), expected: Expected::Seq(written.seq + 1) };
    assert!(test.write(stale).is_err());
    let current = Op::Delete { key: b"doc:1".to_vec(), expected: Expected::Seq(written.seq) };
    assert!(test.write(current).unwrap().existed);
    assert!(test.put("doc:1", &[]).seq > written.seq);
}

#[test]
fn a_directory_is_locked_by_one_engine() {
    let mut test = test_engine();
    let error = Engine::open(test.options.clone()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    let message = error.to_string();
    assert!(message.contains(test.dir.path().join("lock").to_str().unwrap()), "{message}");
    assert!(message.contains("in use by another Nearfield process"), "{message}");
    test.close();
    Engine::open(test.options.clone()).unwrap();
}

#[test]
fn the_error_names_a_path_that_is_not_a_directory() {
    let test = TestEngine::new();
    let file = test.dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    let mut options = test.options.clone();
    options.data_dir = file.join("data");
    let message = Engine::open(options).unwrap_err().to_string();
    assert!(message.contains(file.to_str().unwrap()), "{message}");
}

/// A quantized collection finds the same documents before and after closing, and returns vectors as they were given.
#[test]
fn a_quantized_collection_returns_the_same_hits_after_reopening() {
    for quantization in [Quantization::Int8, Quantization::Int4] {
        let mut test = test_engine();
        let mut quantized = schema("doc:", hnsw(), Metric::Cosine);
        let FieldKind::Vector(vector_schema) = &mut quantized.fields.last_mut().unwrap().kind else {
            panic!("the last field is the vector")
        };
        vector_schema.quantization = quantization;
        test.engine().create_collection("codes", quantized).unwrap();
        fill(&test, 0..300);
        test.settle();
        let results = |test: &TestEngine, collection: &str| -> Vec<Vec<String>> {
            (0..300).step_by(37).map(|number| test.keys(&query(collection, &vector(number), 5))).collect()
        };
        let before = results(&test, "codes");
        let expected = (0..300).step_by(37).map(|number| format!("doc:{number}"));
        assert!(
            before.iter().zip(expected).all(|(keys, expected)| keys[0] == expected),
            "{quantization:?}: {before:?}"
        );
        assert_eq!(results(&test, "docs"), before, "{quantization:?}");
        test.reopen();
        assert!(test.engine().warnings().is_empty(), "{:?}", test.engine().warnings());
        assert_eq!(results(&test, "codes"), before, "{quantization:?}");
        let document = test.engine().get(b"doc:7").unwrap().unwrap();
        let given = blob(&vector(7));
        assert!(document.fields.iter().any(|field| *field.name == *b"v" && *field.value == *given));
    }
}

#[test]
fn a_missing_store_is_not_replaced_by_an_empty_one() {
    let mut test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    test.put("doc:1", &[("v", &blob(&vector(1)))]);
    test.close();
    let store = test.options.data_dir.join("nearfield.redb");
    let bytes = fs::read(&store).unwrap();
    fs::write(&store, b"").unwrap();
    let rejected = |test: &TestEngine| Engine::open(test.options.clone()).unwrap_err().to_string();
    assert!(rejected(&test).contains("restore it from a backup"), "{}", rejected(&test));
    fs::remove_file(&store).unwrap();
    assert!(rejected(&test).contains(store.to_str().unwrap()), "{}", rejected(&test));
    fs::write(&store, bytes).unwrap();
    test.open();
    assert_eq!(test.engine().count("docs", None).unwrap(), 1);
}

#[test]
fn a_store_file_that_was_moved_or_deleted_while_open_rejects_writes() {
    type Displace = fn(&std::path::Path);
    let displacements: [(Displace, &str); 3] = [
        (|file| fs::remove_file(file).unwrap(), "moved or deleted"),
        (|file| fs::rename(file, file.with_extension("moved")).unwrap(), "moved or deleted"),
        (
            |file| {
                let other = file.with_extension("other");
                fs::copy(file, &other).unwrap();
                fs::rename(other, file).unwrap();
            },
            "replaced by another file",
        ),
    ];
    for (displace, what) in displacements {
        let test = TestEngine::new();
        test.put("before", &[("a", b"b")]);
        displace(&test.dir.path().join("nearfield.redb"));
        let error = test.write(put("after", &[("a", b"b")])).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(matches!(error, WriteError::ReadOnly { .. }), "{error:?}");
        let reason = test.engine().writable().unwrap_err();
        assert!(reason.contains(what), "{reason}");
        assert!(test.engine().get(b"before").unwrap().is_some());
    }
}

#[test]
fn a_moved_data_directory_is_noticed_without_writes() {
    let test = TestEngine::new();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(test.dir.path(), elsewhere.path().join("data")).unwrap();
    while test.engine().writable().is_ok() {
        std::thread::yield_now();
    }
}
