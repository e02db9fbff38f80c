//! Copies of a store diverge, and a store meets the snapshots of another copy: it does not use them.
//!
//! `FORKED_HISTORIES=1000 cargo test --release -p engine --test engine forks -- --nocapture` is the long run.

use std::{collections::BTreeMap, fs, sync::Arc};

use engine::{DataDir, Engine, Expected, Metric, Op, Query};

use crate::{
    crash_storage::SimulatedMachine,
    disks::SplitMix64,
    faults::options,
    test_engine::{
        BEGIN_MS, QueryExt as _, TestEngine, blob, copy, embedded_put, embedding_schema, hnsw, keys, put,
        query, schema, text, vector,
    },
};

const KEYS: u64 = 24;

fn open(machine: &SimulatedMachine) -> Engine {
    Engine::open_on(machine.disk.clone(), Arc::new(machine.storage.clone()), options()).unwrap()
}

/// Another machine with the same files.
fn copy_of(machine: &SimulatedMachine) -> SimulatedMachine {
    SimulatedMachine::with_files(machine.disk.bytes(), &machine.snapshots())
}

/// A put or a delete of one of a few documents. Some documents have several passages.
fn random_op(engine: &Engine, random: &mut SplitMix64) -> Op {
    let key = format!("doc:{}", random.next() % KEYS);
    if random.next().is_multiple_of(4) {
        return Op::Delete { key: key.as_bytes().into(), expected: Expected::Any };
    }
    let title = format!("text {}", random.next());
    let category = ["x", "y"][(random.next() % 2) as usize];
    let values: &[(&str, &[u8])] = &[("title", title.as_bytes()), ("category", category.as_bytes())];
    let Op::Put { key, fields, expires_at_ms, mut vectors, expected } = embedded_put(engine, &key, values)
    else {
        unreachable!("it is a put")
    };
    for passage in 1..=random.next() % 3 {
        let mut vector_of_passage = vectors[0].clone();
        vector_of_passage.passage = passage as u16;
        vector_of_passage.values = vector(random.next());
        vectors.push(vector_of_passage);
    }
    Op::Put { key, fields, expires_at_ms, vectors, expected }
}

/// Opens the engine once or several times, and writes each time. The last time it is closed only if `closed`;
/// otherwise the files are left as a kill leaves them.
fn live_on(mut machine: SimulatedMachine, random: &mut SplitMix64, closed: bool) -> SimulatedMachine {
    for opening in (0..=random.next() % 3).rev() {
        let engine = open(&machine);
        assert_eq!(engine.warnings(), [] as [&str; 0], "its own snapshot is used");
        for _ in 0..=random.next() % 4 {
            let ops = (0..=random.next() % 4).map(|_| random_op(&engine, random)).collect();
            assert!(engine.write(ops).iter().all(Result::is_ok));
        }
        // Every opening makes a change.
        let title = random.next().to_string();
        engine.write(vec![embedded_put(&engine, "doc:0", &[("title", title.as_bytes())])]).remove(0).unwrap();
        let is_closed = if opening == 0 { closed } else { random.next().is_multiple_of(2) };
        if is_closed {
            engine.close();
        } else {
            machine = copy_of(&machine);
        }
    }
    machine
}

/// Everything that searches find: per document and passage the hit of its own vector, and what filters select.
fn contents(engine: &Engine) -> Vec<String> {
    let mut contents = Vec::new();
    let target = vector(1);
    for number in 0..KEYS {
        let key = format!("doc:{number}");
        for (_, computed) in engine.vectors("docs", key.as_bytes()).unwrap() {
            let found = engine.search(&query("docs", &computed.values, 1).exact(true)).unwrap();
            contents.push(format!("{key} {} {:?}", computed.passage, keys(&found)));
        }
    }
    for filter in ["@category:{x}", "@category:{y}", "-@category:{x}"] {
        let parsed = engine.parse_filter("docs", filter).unwrap();
        let all = Query { filter: Some(&parsed), ..query("docs", &target, 100).exact(true) };
        let mut found = keys(&engine.search(&all).unwrap());
        found.sort();
        contents.push(format!("{filter} {found:?}"));
    }
    let info = engine.collection("docs").unwrap();
    contents.push(format!("{} documents, {} vectors", info.documents, info.vectors));
    contents
}

fn count(default: u64) -> u64 {
    std::env::var("FORKED_HISTORIES")
        .map_or(default, |text| text.parse().expect("FORKED_HISTORIES is a number"))
}

#[test]
fn the_snapshot_of_a_diverged_copy_is_not_used() {
    let histories = count(25);
    let mut accepted = 0;
    for seed in 0..histories {
        let random = &mut SplitMix64(seed);
        let machine = SimulatedMachine::default();
        let engine = open(&machine);
        engine.create_collection("docs", embedding_schema("doc:")).unwrap();
        engine.close();
        let closed = random.next().is_multiple_of(2);
        let common = live_on(machine, random, closed);
        let closed = random.next().is_multiple_of(2);
        let one = live_on(copy_of(&common), random, closed);
        // Closed, so that its snapshot includes its last change.
        let two = live_on(copy_of(&common), random, true);

        let store = one.disk.bytes();
        let rebuilt = open(&SimulatedMachine::with_files(store.clone(), &BTreeMap::new()));
        let expected = contents(&rebuilt);
        let swapped = open(&SimulatedMachine::with_files(store.clone(), &two.snapshots()));
        let warnings = swapped.warnings();
        accepted += u64::from(warnings.is_empty());
        assert_eq!(contents(&swapped), expected, "seed {seed}: {warnings:?}");
        // The store's own snapshot, and one that was written before the copies diverged, are used.
        for snapshots in [one.snapshots(), common.snapshots()] {
            let engine = open(&SimulatedMachine::with_files(store.clone(), &snapshots));
            assert_eq!(contents(&engine), expected, "seed {seed}");
            let trimmed = engine.warnings().iter().all(|warning| warning.contains("were trimmed"));
            assert!(trimmed, "seed {seed}: {:?}", engine.warnings());
        }
        // The common store put back beside the snapshot of what became of it.
        let older = common.disk.bytes();
        let expected = contents(&open(&SimulatedMachine::with_files(older.clone(), &BTreeMap::new())));
        let engine = open(&SimulatedMachine::with_files(older, &two.snapshots()));
        accepted += u64::from(engine.warnings().is_empty());
        assert_eq!(contents(&engine), expected, "seed {seed}");
    }
    println!("{histories} histories: {accepted} snapshots of another history accepted");
    assert_eq!(accepted, 0);
}

/// 150 documents under `prefix`, in a copy of `test` with the same store.
fn diverge(test: &TestEngine, seed: u64) -> TestEngine {
    let mut other = TestEngine::new();
    other.close();
    fs::remove_dir_all(other.dir.path()).unwrap();
    fs::create_dir(other.dir.path()).unwrap();
    copy(test.dir.path(), other.dir.path());
    other.open();
    let ops = (0..150).map(|number| {
        let key = format!("doc:{number}");
        put_until_later(&key, &[("v", &blob(&vector(seed + number)))])
    });
    assert!(other.engine().write(ops.collect()).iter().all(Result::is_ok));
    other
}

fn put_until_later(key: &str, values: &[(&str, &[u8])]) -> Op {
    let Op::Put { key, fields, vectors, expected, .. } = put(key, values) else { unreachable!() };
    Op::Put { key, fields, expires_at_ms: Some(BEGIN_MS + 1_000_000), vectors, expected }
}

#[test]
fn a_store_file_moved_between_diverged_directories_is_searched_correctly_and_reported_by_check() {
    let mut test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    test.put("doc:0", &[("v", &blob(&vector(1)))]);
    test.close();
    let [mut one, mut two] = [1_000, 5_000].map(|seed| diverge(&test, seed));
    one.close();
    two.close();
    let file = "nearfield.redb";
    fs::copy(two.dir.path().join(file), one.dir.path().join(file)).unwrap();

    let checked = DataDir::lock(one.dir.path()).unwrap().check(one.options.cpu, BEGIN_MS).unwrap();
    assert!(checked.store.is_clean() && !checked.is_clean());
    let [(_, Some(reason))] = &checked.snapshots[..] else { panic!("{:?}", checked.snapshots) };
    assert!(reason.contains("of another copy of this store, whose history differs"), "{reason}");

    one.open();
    let warnings = one.engine().warnings();
    assert!(warnings[0].contains("is not used, all documents are read again"), "{warnings:?}");
    for number in 0..150 {
        let hits = one.engine().search(&query("docs", &vector(5_000 + number), 1)).unwrap().hits;
        assert_eq!(text(&hits[0].document.key), format!("doc:{number}"));
        assert!(hits[0].distance.unwrap() < 1e-6);
    }
    one.close();
    let checked = DataDir::lock(one.dir.path()).unwrap().check(one.options.cpu, BEGIN_MS).unwrap();
    assert!(checked.is_clean(), "{checked:?}");
}
