//! Bits that flip and files that are cut: noticed, or without effect; never a wrong answer, never a panic.
//!
//! `DAMAGES=10000 cargo test --release -p engine --test engine damage -- --nocapture` is the long run;
//! `DAMAGE_SEED` draws others.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use engine::{Cpu, Engine, Metric, Options, Query, SystemClock};

use crate::{
    crashing::Machine,
    disks::SplitMix64,
    world::{blob, embedded_put, embedding_schema, hnsw, keys, put, query, schema, vector},
};

const DOCUMENTS: u64 = 300;

fn options() -> Options {
    Options {
        data_dir: "(a machine given by the test)".into(),
        cpu: Cpu::detect(),
        clock: Arc::new(SystemClock),
        cache_bytes: 1 << 20,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        tail_max: 1000,
        index_threads: 1,
        give_way: || {},
    }
}

fn open(machine: &Machine) -> Result<Engine, engine::OpenError> {
    Engine::open_on(machine.disk.clone(), Arc::new(machine.folder.clone()), options())
}

fn key(number: u64) -> String {
    format!("{}:{number}", if number.is_multiple_of(2) { "given" } else { "made" })
}

/// Two collections: vectors that documents bring, and vectors that were computed.
fn machine() -> Machine {
    let machine = Machine::default();
    let engine = open(&machine).unwrap();
    engine.create_collection("given", schema("given:", hnsw(), Metric::L2)).unwrap();
    engine.create_collection("made", embedding_schema("made:")).unwrap();
    for number in 0..DOCUMENTS {
        let (key, year, text) = (key(number), number.to_string(), format!("text {number}"));
        let op = if number.is_multiple_of(2) {
            put(&key, &[("year", year.as_bytes()), ("v", &blob(&vector(number)))])
        } else {
            embedded_put(&engine, &key, &[("title", text.as_bytes()), ("content", b"more")])
        };
        engine.write(vec![op])[0].as_ref().unwrap();
    }
    engine.close();
    machine
}

/// What everybody can see: documents by key and in order, counts, the nearest. An error where an answer is refused.
fn answers(engine: &Engine) -> BTreeMap<String, Result<String, String>> {
    let mut answers = BTreeMap::new();
    let mut note = |what: String, answer: Result<String, String>| answers.insert(what, answer);
    for number in 0..DOCUMENTS {
        let found = engine.get(key(number).as_bytes());
        note(format!("get {number}"), found.map(|found| format!("{found:?}")).map_err(|e| e.to_string()));
    }
    for name in ["given", "made"] {
        let info = engine.collection(name).map(|info| format!("{} of {}", info.documents, info.failures));
        note(format!("info {name}"), info.map_err(|error| error.to_string()));
        let page = engine.scroll(name, None, None, 1000);
        note(format!("scroll {name}"), page.map(|page| format!("{page:?}")).map_err(|e| e.to_string()));
        for near in 0..4 {
            let wanted = vector(5000 + near);
            let asked = Query { exact: true, ..query(name, &wanted, 20) };
            let found = engine.search(&asked);
            note(
                format!("search {name} {near}"),
                found.map(|found| format!("{:?}", keys(&found))).map_err(|error| error.to_string()),
            );
        }
    }
    answers
}

#[derive(Debug, Default)]
struct Tally {
    refused: u64,
    warned: u64,
    partly_refused: u64,
    without_effect: u64,
}

/// Opens what is damaged and compares.
fn look(machine: &Machine, good: &BTreeMap<String, Result<String, String>>, how: &str, tally: &mut Tally) {
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let engine = match open(machine) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                tally.refused += 1;
                return;
            }
        };
        let found = answers(&engine);
        let warned = !engine.warnings().is_empty();
        let mut refused = false;
        for (what, answer) in &found {
            match (answer, &good[what]) {
                (Err(_), Ok(_)) => refused = true,
                (is, was) => assert_eq!(is, was, "{how}: {what} is wrong and nobody says so"),
            }
        }
        match (refused, warned) {
            (true, _) => tally.partly_refused += 1,
            (false, true) => tally.warned += 1,
            (false, false) => tally.without_effect += 1,
        }
    }));
    if let Err(panic) = looked {
        let text = panic.downcast_ref::<String>().cloned();
        panic!("{how}: {}", text.unwrap_or_else(|| "a panic without words".to_owned()));
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("it is a number"))
}

#[test]
fn a_flipped_bit_is_noticed_or_without_effect() {
    let machine = machine();
    let good = answers(&open(&machine.mended()).unwrap());
    let (store, snapshots) = (machine.disk.bytes().len(), machine.folder.sizes());
    let (mut in_store, mut in_snapshots) = (Tally::default(), Tally::default());
    let count = number("DAMAGES", 400);
    let mut random = SplitMix64(number("DAMAGE_SEED", 7));
    for damage in 0..count {
        let bit = 1 << (random.next() % 8);
        let damaged = machine.mended();
        if damage % 2 == 0 {
            let at = random.next() as usize % store;
            damaged.disk.flip(at, bit);
            look(&damaged, &good, &format!("bit {bit} of byte {at} of the store"), &mut in_store);
        } else {
            let (name, size) = &snapshots[random.next() as usize % snapshots.len()];
            let at = random.next() as usize % size;
            damaged.folder.flip(name, at, bit);
            look(&damaged, &good, &format!("bit {bit} of byte {at} of {name}"), &mut in_snapshots);
        }
    }
    println!("{count} flipped bits: store ({store} bytes) {in_store:?}, snapshots {in_snapshots:?}");
}

#[test]
fn a_file_that_was_cut_is_noticed_or_without_effect() {
    let machine = machine();
    let good = answers(&open(&machine.mended()).unwrap());
    let (store, snapshots) = (machine.disk.bytes().len(), machine.folder.sizes());
    let (mut in_store, mut in_snapshots) = (Tally::default(), Tally::default());
    let count = number("DAMAGES", 400);
    let mut random = SplitMix64(number("DAMAGE_SEED", 11));
    // Around the pages of the one and the frames of the others, and anywhere.
    let mut cut = |size: usize, edge: usize| match random.next() % 2 {
        0 => (random.next() as usize % (size / edge + 1) * edge + random.next() as usize % 3)
            .min(size)
            .saturating_sub(1),
        _ => random.next() as usize % size,
    };
    for _ in 0..count / 2 {
        let damaged = machine.mended();
        let len = cut(store, 4096);
        damaged.disk.cut(len);
        look(&damaged, &good, &format!("the store cut to {len} of {store} bytes"), &mut in_store);
    }
    for damage in 0..count / 2 {
        let damaged = machine.mended();
        let (name, size) = &snapshots[damage as usize % snapshots.len()];
        let len = cut(*size, 8);
        damaged.folder.cut(name, len);
        look(&damaged, &good, &format!("{name} cut to {len} of {size} bytes"), &mut in_snapshots);
    }
    println!("{count} cuts: store ({store} bytes) {in_store:?}, snapshots {in_snapshots:?}");
    assert_eq!(in_snapshots.warned, count / 2, "every cut snapshot is told of and made again");
}
