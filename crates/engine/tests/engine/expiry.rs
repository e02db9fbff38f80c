//! Documents expire: they are hidden immediately and deleted soon.

use std::{path::Path, sync::mpsc, thread, time::Duration};

use engine::{Expected, Metric, Op, WriteError};
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::test_engine::*;

fn test_engine() -> TestEngine {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    test
}

#[test]
fn an_expired_document_is_hidden_everywhere_before_it_is_purged() {
    let test = test_engine();
    for number in 0..40u64 {
        let vector = blob(&vector(number));
        let values: &[(&str, &[u8])] = &[("category", b"a"), ("v", &vector)];
        let at_ms = if number % 2 == 0 { BEGIN_MS + 1_000 } else { BEGIN_MS + 2_000 };
        test.write(put_until(&format!("doc:{number}"), values, at_ms)).unwrap();
    }
    let target = vector(0);
    test.clock.advance(999);
    assert_eq!(test.keys(&query("docs", &target, 40)).len(), 40);
    test.clock.advance(1);
    for exact in [false, true] {
        // As many as requested, although half of the nearest have expired.
        let found = test.keys(&query("docs", &target, 20).exact(exact));
        assert_eq!(found.len(), 20);
        assert!(found.iter().all(|key| key[4..].parse::<u64>().unwrap() % 2 == 1), "{found:?}");
    }
    assert_eq!(test.engine().get(b"doc:0").unwrap(), None);
    assert!(test.engine().get(b"doc:1").unwrap().is_some());
    assert_eq!(test.count("docs", "@category:{a}"), 20);
    assert_eq!(test.engine().count("docs", None).unwrap(), 20);
    assert_eq!(test.scroll("docs", None).len(), 20);
    assert_eq!(test.engine().collection("docs").unwrap().documents, 20);
    test.clock.advance(10_000);
    assert_eq!(test.keys(&query("docs", &target, 20)), [] as [&str; 0]);
}

#[test]
fn purging_frees_space_and_is_durable() {
    let mut test = test_engine();
    // Maintenance also purges in the background, so the number of documents purged here is unknown.
    let ops = (0..1200).map(|number| put_until(&format!("doc:{number}"), &[], BEGIN_MS + 5)).collect();
    assert!(test.engine().write(ops).iter().all(Result::is_ok));
    test.put("doc:kept", &[]);
    test.clock.advance(5);
    test.engine().purge_expired().unwrap();
    assert_eq!(test.engine().stats().unwrap().documents, 1);
    assert_eq!(test.engine().purge_expired().unwrap(), 0);
    test.clock.set(BEGIN_MS);
    test.reopen();
    assert_eq!(test.scroll("docs", None), ["doc:kept"]);
}

#[test]
fn documents_without_expiry_get_the_shortest_ttl_of_their_collections() {
    let test = TestEngine::new();
    let mut long = schema("doc:", hnsw(), Metric::Cosine);
    long.ttl = Some(Duration::from_secs(100));
    let mut short = schema("doc:s", hnsw(), Metric::Cosine);
    short.ttl = Some(Duration::from_secs(10));
    test.engine().create_collection("long", long).unwrap();
    test.engine().create_collection("short", short).unwrap();
    let at_ms = |key: &str| test.engine().get(key.as_bytes()).unwrap().unwrap().expires_at_ms;
    test.put("doc:l", &[]);
    test.put("doc:s", &[]);
    test.put("other", &[]);
    assert_eq!(at_ms("doc:l"), Some(BEGIN_MS + 100_000));
    assert_eq!(at_ms("doc:s"), Some(BEGIN_MS + 10_000));
    assert_eq!(at_ms("other"), None);
    test.write(put_until("doc:s", &[], BEGIN_MS + 500_000)).unwrap();
    assert_eq!(at_ms("doc:s"), Some(BEGIN_MS + 500_000));
    test.put("doc:s", &[]);
    assert_eq!(at_ms("doc:s"), Some(BEGIN_MS + 10_000));
}

#[test]
fn a_write_changes_or_removes_the_expiry() {
    let test = test_engine();
    let found = |test: &TestEngine| test.keys(&query("docs", &vector(1), 5));
    let v = blob(&vector(1));
    test.write(put_until("doc:1", &[("v", &v)], BEGIN_MS + 1_000)).unwrap();
    test.write(put_until("doc:1", &[("v", &v)], BEGIN_MS + 2_000)).unwrap();
    test.clock.advance(1_500);
    assert_eq!(found(&test), ["doc:1"]);
    test.put("doc:1", &[("v", &v)]);
    test.clock.advance(1_000_000);
    assert_eq!(found(&test), ["doc:1"]);
}

#[test]
fn an_expired_document_counts_as_absent_for_writes() {
    let test = test_engine();
    let v = blob(&vector(1));
    let first = test.write(put_until("doc:1", &[("v", &v)], BEGIN_MS + 10)).unwrap();
    test.clock.advance(10);
    let Op::Put { key, fields, expires_at_ms, vectors, .. } = put("doc:1", &[("v", &v)]) else {
        unreachable!()
    };
    let guarded = |expected| Op::Put {
        key: key.clone(),
        fields: fields.clone(),
        expires_at_ms,
        vectors: vectors.clone(),
        expected,
    };
    let error = test.write(guarded(Expected::Seq(first.seq))).unwrap_err();
    assert!(matches!(error, WriteError::Conflict { found: None, .. }), "{error}");
    let rewritten = test.write(guarded(Expected::Absent)).unwrap();
    assert!(!rewritten.existed);
    assert_eq!(test.keys(&query("docs", &vector(1), 5)), ["doc:1"]);

    test.write(put_until("doc:2", &[], BEGIN_MS + 20)).unwrap();
    test.clock.advance(10);
    let deleted = test.delete("doc:2");
    assert_eq!((deleted.seq, deleted.existed), (0, false));
}

#[test]
fn documents_that_expired_while_closed_are_hidden_after_opening() {
    for saved in [true, false] {
        let mut test = test_engine();
        let v = blob(&vector(1));
        test.write(put_until("doc:1", &[("v", &v)], BEGIN_MS + 10)).unwrap();
        test.put("doc:2", &[("v", &v)]);
        test.close();
        if !saved {
            std::fs::remove_dir_all(test.options.data_dir.join("snapshots")).unwrap();
        }
        test.clock.advance(10);
        test.open();
        assert_eq!(test.keys(&query("docs", &vector(1), 5)), ["doc:2"]);
        assert_eq!(test.engine().count("docs", None).unwrap(), 1);
    }
}

#[test]
fn maintenance_purges_expired_documents() {
    let test = test_engine();
    test.write(put_until("doc:1", &[], BEGIN_MS + 10)).unwrap();
    test.clock.advance(10);
    wait_until("the document is not purged", || test.engine().stats().unwrap().documents == 0);
}

#[test]
fn the_largest_expiry_is_accepted() {
    let test = test_engine();
    test.write(put_until("doc:1", &[], u64::MAX)).unwrap();
    test.put("doc:2", &[]);
    test.clock.set(u64::MAX - 1);
    assert_eq!(test.engine().count("docs", None).unwrap(), 2);
    test.clock.set(u64::MAX);
    assert_eq!(test.engine().count("docs", None).unwrap(), 1);
    assert_eq!(test.scroll("docs", None), ["doc:2"]);
}

/// An expiry is a point in time: after a clock jump, exactly the documents that expire by the new time have expired.
#[test]
fn a_clock_jump_expires_exactly_the_documents_that_are_due() {
    const DAY_MS: u64 = 24 * 3_600_000;
    const YEAR_MS: u64 = 365 * DAY_MS;
    let mut test = test_engine();
    let expiries = [None, Some(DAY_MS / 2), Some(2 * DAY_MS), Some(9 * YEAR_MS), Some(11 * YEAR_MS)]
        .map(|at_ms| at_ms.map(|ms| BEGIN_MS + ms));
    for (number, at_ms) in (0..).zip(expiries) {
        let v = blob(&vector(number));
        let key = format!("doc:{number}");
        let values: &[(&str, &[u8])] = &[("category", b"a"), ("v", &v)];
        let op = at_ms.map_or_else(|| put(&key, values), |at_ms| put_until(&key, values, at_ms));
        test.write(op).unwrap();
    }
    let check = |test: &TestEngine, now_ms: u64| {
        let exists = |at_ms: &Option<u64>| at_ms.is_none_or(|at_ms| at_ms > now_ms);
        let live: Vec<String> = (0..)
            .zip(expiries)
            .filter(|(_, at_ms)| exists(at_ms))
            .map(|(number, _): (u64, _)| format!("doc:{number}"))
            .collect();
        for (number, at_ms) in expiries.iter().enumerate() {
            let found = test.engine().get(format!("doc:{number}").as_bytes()).unwrap();
            assert_eq!(
                found.map(|found| found.expires_at_ms),
                exists(at_ms).then_some(*at_ms),
                "at {now_ms}"
            );
        }
        for exact in [true, false] {
            let mut found = test.keys(&query("docs", &vector(7), 10).exact(exact));
            found.sort();
            assert_eq!(found, live, "at {now_ms}");
        }
        assert_eq!(test.scroll("docs", None), live, "at {now_ms}");
        let count = live.len() as u64;
        assert_eq!(test.count("docs", "@category:{a}"), count, "at {now_ms}");
        assert_eq!(test.engine().count("docs", None).unwrap(), count, "at {now_ms}");
        assert_eq!(test.engine().collection("docs").unwrap().documents, count, "at {now_ms}");
    };
    check(&test, BEGIN_MS);
    // Back by one day, forward by one day twice, forward by ten years, back by one day: purged documents stay deleted.
    for now_ms in [BEGIN_MS - DAY_MS, BEGIN_MS, BEGIN_MS + DAY_MS, BEGIN_MS + DAY_MS + 10 * YEAR_MS] {
        test.clock.set(now_ms);
        check(&test, now_ms);
        test.reopen();
        check(&test, now_ms);
        test.engine().purge_expired().unwrap();
        check(&test, now_ms);
        let live = test.scroll("docs", None).len() as u64;
        assert_eq!(
            test.engine().stats().unwrap().documents,
            live,
            "the store keeps documents that have not expired"
        );
    }
    test.clock.set(BEGIN_MS + 10 * YEAR_MS);
    check(&test, BEGIN_MS + DAY_MS + 10 * YEAR_MS);
}

/// Whether a search or only a read by key detected the expiry.
#[test]
fn expired_documents_stay_hidden_when_the_clock_is_set_back() {
    for searched in [false, true] {
        let test = test_engine();
        let v = blob(&vector(1));
        for (key, at_ms) in [("doc:1", 10), ("doc:2", 1_000), ("elsewhere", 10)] {
            test.write(put_until(key, &[("category", b"a"), ("v", &v)], BEGIN_MS + at_ms)).unwrap();
        }
        let shows = |key: &str| test.engine().get(key.as_bytes()).unwrap().is_some();
        let check = || {
            assert_eq!(["doc:1", "doc:2", "elsewhere"].map(shows), [false, true, false]);
            assert_eq!(test.keys(&query("docs", &vector(1), 5)), ["doc:2"]);
            assert_eq!(test.count("docs", "@category:{a}"), 1);
            assert_eq!(test.scroll("docs", None), ["doc:2"]);
        };
        test.clock.advance(10);
        if searched {
            assert_eq!(test.keys(&query("docs", &vector(1), 5)), ["doc:2"]);
        } else {
            assert!(!shows("elsewhere"));
        }
        test.clock.set(BEGIN_MS - 5);
        check();
        test.engine().purge_expired().unwrap();
        check();
        assert_eq!(test.engine().stats().unwrap().documents, 1);

        // After the purge, new documents expire by the current clock.
        assert_eq!(test.engine().now_ms(), BEGIN_MS - 5);
        test.write(put_until("doc:1", &[("category", b"a"), ("v", &v)], BEGIN_MS)).unwrap();
        assert!(shows("doc:1"));
        assert_eq!(test.count("docs", "@category:{a}"), 2);
        test.clock.set(BEGIN_MS);
        check();
    }
}

#[test]
fn expired_documents_free_the_space_for_new_ones() {
    let test = test_engine();
    let mut after_first = 0;
    for round in 0..12u64 {
        let at_ms = BEGIN_MS + (round + 1) * 1_000;
        let text = [b'a' + round as u8; 1_000];
        let ops = (0..500).map(|number| {
            let v = blob(&vector(round * 500 + number));
            put_until(&format!("doc:{round}:{number}"), &[("content", &text), ("v", &v)], at_ms)
        });
        assert!(test.engine().write(ops.collect()).iter().all(Result::is_ok));
        test.clock.set(at_ms);
        test.engine().purge_expired().unwrap();
        let stats = test.engine().stats().unwrap();
        assert_eq!(stats.documents, 0);
        if round == 1 {
            after_first = stats.file_bytes;
        }
        assert!(
            round < 2 || stats.file_bytes <= 2 * after_first,
            "{} bytes after round {round}",
            stats.file_bytes
        );
    }
}

/// Tables of the store.
const DOCUMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("documents");
const EXPIRIES: TableDefinition<'_, (u64, u64), u32> = TableDefinition::new("expiries");
/// Far longer than a purge takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The row for the expiry of a document at `at_ms`.
fn entry(store: &Path, at_ms: u64, doc: u64) -> u32 {
    let database = redb::Database::open(store).unwrap();
    let read = database.begin_read().unwrap();
    read.open_table(EXPIRIES).unwrap().get((at_ms, doc)).unwrap().expect("the row exists").value()
}

fn put_entry(store: &Path, at_ms: u64, doc: u64, value: u32) {
    let database = redb::Database::open(store).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(EXPIRIES).unwrap().insert((at_ms, doc), value).unwrap();
    write.commit().unwrap();
}

/// Flips one bit of a document's record.
fn damage_record(store: &Path, doc: u64) {
    let database = redb::Database::open(store).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut documents = write.open_table(DOCUMENTS).unwrap();
        let mut record = documents.get(doc).unwrap().expect("the document exists").value().to_vec();
        record[0] ^= 1;
        documents.insert(doc, &*record).unwrap();
    }
    write.commit().unwrap();
}

/// The first document to expire is corrupt, or expires later according to its record, or is missing, or its expiry
/// row is corrupt.
#[test]
fn corrupt_rows_do_not_prevent_others_from_being_purged() {
    const OTHERS: u64 = 1_500;
    for damage in ["record", "later expiry", "no document", "entry"] {
        let mut test = TestEngine::new();
        let at_ms = |number: u64| BEGIN_MS + number;
        test.write(put_until("damaged", &[], at_ms(1))).unwrap();
        let others = (0..OTHERS).map(|number| put_until(&format!("{number}"), &[], at_ms(2 + number % 3)));
        assert!(test.engine().write(others.collect()).iter().all(Result::is_ok));
        test.close();
        let store = test.options.data_dir.join("nearfield.redb");
        let intact = entry(&store, at_ms(1), 1);
        match damage {
            "record" => damage_record(&store, 1),
            "entry" => put_entry(&store, at_ms(1), 1, intact ^ 1),
            _ => {
                test.open();
                if damage == "no document" {
                    test.delete("damaged");
                } else {
                    test.write(put_until("damaged", &[], at_ms(1_000_000))).unwrap();
                }
                test.close();
                put_entry(&store, at_ms(1), 1, intact);
            }
        }
        test.open();
        test.clock.advance(10);
        let engine = test.engine();
        let purged = thread::scope(|scope| {
            let (answer, answered) = mpsc::channel();
            scope.spawn(move || answer.send(engine.purge_expired()));
            // Closing the engine also ends the purge.
            answered.recv_timeout(TIMEOUT).inspect_err(|_| engine.close())
        });
        let message = purged.expect("the purge ends").unwrap_err().to_string();
        let location = if damage == "record" { "table documents, key 1:" } else { "table expiries, key" };
        assert!(message.contains(location), "{damage}: {message}");
        let remaining = u64::from(damage != "no document");
        assert_eq!(engine.stats().unwrap().documents, remaining, "{damage}");
        // The engine continues to work.
        test.write(put_until("later", &[], BEGIN_MS + 20)).unwrap();
        test.clock.advance(10);
        test.engine().purge_expired().unwrap_err();
        assert_eq!(test.engine().stats().unwrap().documents, remaining, "{damage}");
    }
}
