//! Documents with several vectors in one field. Only passage 0 is computed so far; these tests write others too.

use std::{collections::BTreeSet, fs};

use engine::{ComputedVector, DataDir, Metric, Op, Query};

use crate::test_engine::*;

/// A put of a document with these vectors as its passages 0, 1 and so on.
fn put_passages(test: &TestEngine, key: &str, category: &str, passages: &[Vec<f32>]) -> Op {
    let fields: &[(&str, &[u8])] = &[("title", key.as_bytes()), ("category", category.as_bytes())];
    let Op::Put { key, fields, expires_at_ms, vectors, expected } = embedded_put(test.engine(), key, fields)
    else {
        unreachable!()
    };
    let first = &vectors[0];
    let vectors = (0..)
        .zip(passages)
        .map(|(passage, values)| ComputedVector { passage, values: values.clone(), ..first.clone() })
        .collect();
    Op::Put { key, fields, expires_at_ms, vectors, expected }
}

/// The vectors with these numbers, as the passages of one document.
fn passages(numbers: impl IntoIterator<Item = u64>) -> Vec<Vec<f32>> {
    numbers.into_iter().map(vector).collect()
}

/// Two documents with several passages and thirty with one.
fn filled() -> TestEngine {
    let test = TestEngine::new();
    test.engine().create_collection("docs", embedding_schema("doc:")).unwrap();
    test.write(put_passages(&test, "doc:two", "few", &passages([1, 2]))).unwrap();
    test.write(put_passages(&test, "doc:many", "many", &passages(1000..1040))).unwrap();
    for number in 100..130 {
        let key = format!("doc:{number}");
        test.write(put_passages(&test, &key, "one", &passages([number]))).unwrap();
    }
    test
}

/// Checks that each document is found once, by its nearest passage.
fn check(test: &TestEngine) {
    for exact in [false, true] {
        for (number, key, passage) in [(1, "doc:two", 0), (2, "doc:two", 1), (1017, "doc:many", 17)] {
            let target = vector(number);
            let hits = test.engine().search(&query("docs", &target, 32).exact(exact)).unwrap().hits;
            assert_eq!(text(&hits[0].document.key), key);
            assert_eq!(hits[0].passage, Some(passage), "{key}");
            assert!(hits[0].distance.unwrap().abs() < 1e-6, "{key}");
            assert!(hits.is_sorted_by_key(|hit| hit.distance.unwrap()));
            let distinct: BTreeSet<_> = hits.iter().map(|hit| &hit.document.key).collect();
            assert_eq!((hits.len(), distinct.len()), (32, 32), "every document once");
            let paged = test.engine().search(&query("docs", &target, 5).exact(exact).offset(3)).unwrap();
            assert_eq!(paged.hits, hits[3..8], "{key}");
        }
        let target = vector(1017);
        for (filter, expected) in
            [("@category:{many}", 1), ("@category:{few|one}", 31), ("-@category:{few}", 31)]
        {
            let filter = test.filter("docs", filter);
            let filtered = Query { filter: Some(&filter), ..query("docs", &target, 50).exact(exact) };
            let keys = test.keys(&filtered);
            assert_eq!(keys.len(), expected, "{filter}");
            assert_eq!(test.engine().count("docs", Some(&filter)).unwrap(), expected as u64);
        }
    }
    assert_eq!(test.engine().collection("docs").unwrap().documents, 32);
    assert_eq!(test.scroll("docs", None).len(), 32);
}

#[test]
fn a_document_is_found_once_by_its_nearest_passage() {
    let test = filled();
    check(&test);
    test.settle();
    check(&test);
}

#[test]
fn passages_are_found_again_after_reopening_and_after_a_crash() {
    let mut test = filled();
    test.settle();
    test.reopen();
    let snapshots = fs::read_dir(test.dir.path().join("snapshots")).unwrap().count();
    assert_eq!(snapshots, 1);
    assert_eq!(test.engine().collection("docs").unwrap().tail, 0, "the snapshot has the graph");
    check(&test);
    test.close();
    let checked = DataDir::lock(test.dir.path()).unwrap().check(test.options.cpu, BEGIN_MS).unwrap();
    assert!(checked.is_clean(), "{checked:?}");
    test.open();
    test.crash();
    check(&test);
}

#[test]
fn labels_of_passages_in_a_snapshot_are_not_assigned_again() {
    let mut test = filled();
    test.delete("doc:100");
    test.reopen();
    for number in 2000..2010 {
        test.write(put_passages(&test, &format!("doc:{number}"), "new", &passages([number, number + 50])))
            .unwrap();
    }
    test.delete("doc:two");
    for number in 2000..2010 {
        for (target, passage) in [(number, 0), (number + 50, 1)] {
            let hits = test.engine().search(&query("docs", &vector(target), 1)).unwrap().hits;
            assert_eq!(
                (text(&hits[0].document.key), hits[0].passage),
                (format!("doc:{number}"), Some(passage))
            );
        }
    }
    let hits = test.engine().search(&query("docs", &vector(1017), 1)).unwrap().hits;
    assert_eq!((text(&hits[0].document.key), hits[0].passage), ("doc:many".to_owned(), Some(17)));
    test.close();
    let checked = DataDir::lock(test.dir.path()).unwrap().check(test.options.cpu, BEGIN_MS).unwrap();
    assert!(checked.is_clean(), "{checked:?}");
}

#[test]
fn passages_written_after_a_snapshot_are_found_after_reopening() {
    let mut test = TestEngine::new();
    test.engine().create_collection("docs", embedding_schema("doc:")).unwrap();
    test.write(put_passages(&test, "doc:1", "one", &passages([1]))).unwrap();
    test.reopen();
    test.write(put_passages(&test, "doc:1", "one", &passages([1, 2]))).unwrap();
    test.crash();
    assert_eq!(test.engine().warnings(), [] as [&str; 0]);
    let hits = test.engine().search(&query("docs", &vector(2), 1)).unwrap().hits;
    assert_eq!((hits[0].passage, hits.len()), (Some(1), 1));
}

#[test]
fn a_rewritten_or_deleted_document_leaves_no_passage_behind() {
    let mut test = filled();
    test.write(put_passages(&test, "doc:many", "many", &passages(1000..1003))).unwrap();
    test.write(put_passages(&test, "doc:two", "few", &passages([2]))).unwrap();
    // In one transaction: the first write is not published when the second is applied.
    let twice = vec![
        put_passages(&test, "doc:100", "one", &passages([100, 3000])),
        put_passages(&test, "doc:100", "one", &passages([100])),
    ];
    test.engine().write(twice).into_iter().for_each(|result| assert!(result.is_ok()));
    for reopened in [false, true] {
        if reopened {
            test.reopen();
        }
        assert_eq!(test.engine().vectors("docs", b"doc:many").unwrap().len(), 3);
        assert_eq!(test.engine().vectors("docs", b"doc:two").unwrap().len(), 1);
        assert_eq!(test.engine().vectors("docs", b"doc:100").unwrap().len(), 1);
        for (number, passage) in [(1, None), (2, Some(0)), (1002, Some(2)), (1003, None), (3000, None)] {
            let hits = test.engine().search(&query("docs", &vector(number), 1)).unwrap().hits;
            let nearest = hits[0].distance.unwrap().abs() < 1e-6;
            assert_eq!(nearest.then_some(hits[0].passage.unwrap()), passage, "{number}");
        }
        assert_eq!(test.engine().collection("docs").unwrap().vectors, 3 + 1 + 30);
    }
    test.delete("doc:many");
    for number in 2000..2010 {
        // New documents reuse the labels of the deleted passages.
        test.write(put_passages(&test, &format!("doc:{number}"), "one", &passages([number]))).unwrap();
    }
    let keys = test.keys(&query("docs", &vector(1001), 100));
    assert_eq!(keys.len(), 41);
    assert!(!keys.contains(&"doc:many".to_owned()));
    assert_eq!(test.engine().collection("docs").unwrap().vectors, 41);
}

#[test]
fn a_rebuilt_version_reuses_all_passages() {
    let test = filled();
    let mut schema = embedding_schema("doc:");
    schema.fields[4] =
        vector_field("v", engine::Algorithm::Flat, Metric::Cosine, Some(&["title", "content"]));
    test.engine().rebuild_collection("docs", schema).unwrap();
    test.engine().switch_collection("docs").unwrap();
    check(&test);
    assert_eq!(test.engine().collection("docs").unwrap().unembedded, 0);
}

#[test]
fn rejects_the_same_passage_twice() {
    let test = filled();
    let mut op = put_passages(&test, "doc:two", "few", &passages([1, 2]));
    let Op::Put { vectors, .. } = &mut op else { unreachable!() };
    vectors[1].passage = 0;
    let error = test.write(op).unwrap_err().to_string();
    assert!(error.contains("given twice"), "{error}");
}
