//! Writing and reading documents.

use std::sync::mpsc;

use engine::{Durability, Expected, Metric, Op, WriteError, WriteOutcome};

use crate::test_engine::*;

#[test]
fn documents_are_read_back_byte_for_byte() {
    let test = TestEngine::new();
    let values: &[(&str, &[u8])] = &[("title", b"\x00\xff\xfe"), ("other", b""), ("\u{1f600}", b"smile")];
    let written = test.put("doc:1", values);
    assert!(!written.existed);
    let document = test.engine().get(b"doc:1").unwrap().unwrap();
    assert_eq!(document.fields, fields(values));
    assert_eq!(document.seq, written.seq);
    assert_eq!(document.expires_at_ms, None);
    assert_eq!(test.engine().get(b"doc:2").unwrap(), None);
}

#[test]
fn a_put_replaces_the_whole_document() {
    let test = TestEngine::new();
    let first = test.put("doc:1", &[("title", b"one"), ("year", b"2020")]);
    let second = test.put("doc:1", &[("title", b"two")]);
    assert!(second.existed);
    assert!(second.seq > first.seq);
    assert_eq!(test.engine().get(b"doc:1").unwrap().unwrap().fields, fields(&[("title", b"two")]));
}

#[test]
fn a_delete_reports_whether_the_document_existed() {
    let test = TestEngine::new();
    test.put("doc:1", &[("title", b"one")]);
    let deleted = test.delete("doc:1");
    assert!(deleted.existed);
    assert_eq!(test.engine().get(b"doc:1").unwrap(), None);
    assert_eq!(test.delete("doc:1"), WriteOutcome { seq: 0, existed: false });
}

#[test]
fn of_two_conditional_writes_only_one_succeeds() {
    let test = TestEngine::new();
    let guarded = |expected, title: &[u8]| {
        let Op::Put { key, fields, expires_at_ms, vectors, .. } = put("doc:1", &[("title", title)]) else {
            unreachable!()
        };
        test.write(Op::Put { key, fields, expires_at_ms, vectors, expected })
    };
    let first = guarded(Expected::Absent, b"a").unwrap();
    let error = guarded(Expected::Absent, b"b").unwrap_err();
    assert!(matches!(error, WriteError::Conflict { found: Some(seq), .. } if seq == first.seq), "{error}");
    let second = guarded(Expected::Seq(first.seq), b"c").unwrap();
    let error = guarded(Expected::Seq(first.seq), b"d").unwrap_err();
    assert!(matches!(error, WriteError::Conflict { found: Some(seq), .. } if seq == second.seq), "{error}");
    let stale = Op::Delete { key: b"doc:1".to_vec(), expected: Expected::Seq(first.seq) };
    assert!(matches!(test.write(stale), Err(WriteError::Conflict { .. })));
    assert_eq!(test.engine().get(b"doc:1").unwrap().unwrap().fields, fields(&[("title", b"c")]));
}

#[test]
fn a_rejected_write_does_not_affect_others_in_its_group() {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    let good = blob(&vector(1));
    let ops = vec![
        put("doc:1", &[("v", &good)]),
        put("doc:2", &[("v", b"short")]),
        put("doc:3", &[("year", b"soon")]),
        put("", &[]),
        put("doc:4", &[("v", &good), ("title", b"x"), ("title", b"y")]),
        put("doc:5", &[("v", &blob(&[0.0; DIM]))]),
        put("doc:6", &[("v", &blob(&[f32::NAN; DIM]))]),
        put("elsewhere", &[("v", b"short"), ("year", b"soon")]),
        put("doc:7", &[("v", &good), ("category", &b"x,".repeat(2000))]),
        put("doc:8", &[("v", &good), ("year", b"inf")]),
    ];
    for op in &ops {
        // `validate` rejects what a write rejects, with the same message.
        let validated = test.engine().validate(op).map_err(|error| error.to_string());
        let written = test.write(op.clone()).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(validated, written);
    }
    let results: Vec<Result<(), String>> = test
        .engine()
        .write(ops)
        .into_iter()
        .map(|result| result.map(|_| ()).map_err(|error| error.to_string()))
        .collect();
    let rejected = |message: &str| Err(message.to_owned());
    let expected = [
        Ok(()),
        rejected(
            "document \"doc:2\", field \"v\": vector dimensions do not match: expected 32 bytes \
             (8 x FLOAT32), found 5",
        ),
        rejected("document \"doc:3\", field \"year\": expected a finite number, found \"soon\""),
        rejected("document \"\": the key is empty, at least one byte is needed"),
        rejected("document \"doc:4\": field \"title\" is given twice"),
        rejected(
            "document \"doc:5\", field \"v\": vector is all zeros: it has no direction, so cosine \
             distance is undefined",
        ),
        rejected("document \"doc:6\", field \"v\": vector value 0 is NaN: every value must be finite"),
        Ok(()),
        Ok(()),
        rejected("document \"doc:8\", field \"year\": expected a finite number, found \"inf\""),
    ];
    assert_eq!(results, expected);
    assert_eq!(test.engine().collection("docs").unwrap().documents, 2);
    assert_eq!(test.engine().get(b"doc:2").unwrap(), None);
}

#[test]
fn an_acknowledged_write_is_found_from_another_thread() {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let test = &test;
        scope.spawn(move || {
            for number in 0..300u64 {
                let done = sender.clone();
                let op = put(&format!("doc:{number}"), &[("v", &blob(&vector(number)))]);
                let done = Box::new(move |results: Vec<Result<WriteOutcome, WriteError>>| {
                    done.send((number, results[0].as_ref().unwrap().seq)).unwrap();
                });
                test.engine().submit(vec![op], done).unwrap();
            }
        });
        for (number, seq) in receiver {
            let vector = vector(number);
            let found = test.engine().search(&query("docs", &vector, 1)).unwrap();
            assert_eq!(keys(&found), [format!("doc:{number}")]);
            assert_eq!(found.hits[0].document.seq, seq);
        }
    });
}

#[test]
fn a_large_job_is_committed_in_several_groups_and_answered_once() {
    let test = TestEngine::new();
    let ops: Vec<Op> = (0..1500).map(|number| put(&format!("doc:{number}"), &[("title", b"x")])).collect();
    let results = test.engine().write(ops);
    let seqs: Vec<u64> = results.into_iter().map(|result| result.unwrap().seq).collect();
    assert_eq!(seqs, (1..=1500).collect::<Vec<u64>>());
    assert_eq!(test.engine().stats().unwrap().commits, 3);
    assert!(test.engine().write(Vec::new()).is_empty());
}

#[test]
fn a_full_queue_is_reported_immediately() {
    let test = TestEngine::new();
    let (enter, entered) = mpsc::channel();
    let (leave, remaining) = mpsc::channel::<()>();
    // Blocks the committer inside a callback.
    let hold = Box::new(move |_: Vec<Result<WriteOutcome, WriteError>>| {
        enter.send(()).unwrap();
        remaining.recv().unwrap();
    });
    test.engine().submit(vec![put("first", &[])], hold).unwrap();
    entered.recv().unwrap();
    let many = || (0..4000).map(|number| put(&format!("doc:{number}"), &[])).collect::<Vec<Op>>();
    let (answer, answers) = mpsc::channel();
    let mut accepted = 0;
    let rejected = loop {
        let answer = answer.clone();
        let done = Box::new(move |results: Vec<_>| answer.send(results.len()).unwrap());
        match test.engine().submit(many(), done) {
            Ok(()) => accepted += 1,
            Err(full) => break full,
        }
    };
    assert_eq!(rejected.to_string(), "the write queue is full");
    assert_eq!(accepted, 2);
    leave.send(()).unwrap();
    for _ in 0..accepted {
        assert_eq!(answers.recv().unwrap(), 4000);
    }
}

#[test]
fn a_closed_engine_serves_reads_and_rejects_writes() {
    let test = TestEngine::new();
    test.put("doc:1", &[("title", b"one")]);
    test.engine().close();
    test.engine().close();
    assert!(test.engine().get(b"doc:1").unwrap().is_some());
    assert!(matches!(test.write(put("doc:2", &[])), Err(WriteError::Closed)));
    let (answer, answers) = mpsc::channel();
    let done = Box::new(move |results: Vec<Result<WriteOutcome, WriteError>>| answer.send(results).unwrap());
    test.engine().submit(vec![put("doc:2", &[])], done).unwrap();
    assert!(matches!(answers.recv().unwrap()[..], [Err(WriteError::Closed)]));
    assert_eq!(test.engine().writable().unwrap_err(), "the engine is closed");
}

#[test]
fn a_panicking_callback_does_not_stop_other_writes() {
    let test = TestEngine::new();
    test.engine().submit(vec![put("doc:1", &[])], Box::new(|_| panic!("injected panic"))).unwrap();
    test.put("doc:2", &[]);
    assert!(test.engine().get(b"doc:1").unwrap().is_some());
    assert_eq!(test.engine().warnings(), ["the callback of a write panicked"]);
}

#[test]
fn at_the_memory_limit_only_deletes_are_accepted() {
    let mut test = TestEngine::with(|options| {
        options.memory_max_bytes = 1 << 19;
        options.durability = Durability::None;
    });
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    let write = |test: &TestEngine, number: u64| {
        test.write(put(&format!("doc:{number}"), &[("v", &blob(&vector(number)))]))
    };
    let mut accepted = 0;
    let rejected = loop {
        match write(&test, accepted) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1_000_000, "there is no limit");
    };
    assert!(matches!(rejected, WriteError::Memory { .. }), "{rejected}");
    assert!(rejected.to_string().contains("memory_max_mib"), "{rejected}");
    let bytes_before = test.engine().collection("docs").unwrap().memory_bytes;
    assert!((1 << 19..3 << 18).contains(&bytes_before), "{bytes_before} bytes");
    assert_eq!(test.keys(&query("docs", &vector(0), 1)), ["doc:0"], "reads continue");
    assert_eq!(test.engine().count("docs", None).unwrap(), accepted);
    // Deletes need no memory. Most of the memory that they free can be reused at once, the rest after a vacuum.
    for round in 1..=2 {
        let count = test.engine().count("docs", None).unwrap();
        for number in 0..accepted / 2 {
            test.delete(&format!("doc:{number}"));
        }
        assert!(test.engine().count("docs", None).unwrap() < count);
        let deleted = accepted / 2;
        let rewritten = (0..deleted).take_while(|number| write(&test, *number).is_ok()).count() as u64;
        assert!(rewritten * 10 >= deleted * 9, "{rewritten} of {deleted} were rewritten, round {round}");
    }
    let bytes = test.engine().collection("docs").unwrap().memory_bytes;
    assert!(bytes < 2 * bytes_before, "{bytes_before} bytes before, {bytes} now");
    // The limit is higher after the next start.
    test.options.memory_max_bytes = 0;
    test.reopen();
    write(&test, accepted).unwrap();
}
