//! Files are truncated, or one of their bits is flipped: every query result is still correct or an error, or the
//! engine reports what it lost.
//!
//! `DAMAGES=10000 cargo test -p engine --test engine damage -- --nocapture` is the long run; `DAMAGE_SEED` selects
//! other damage.

use std::{collections::BTreeMap, sync::Arc};

use engine::{Engine, Expected, Metric, Op, Options};

use crate::{
    crash_storage::SimulatedMachine,
    disks::SplitMix64,
    faults::options,
    test_engine::{
        BEGIN_MS, FakeClock, QueryExt as _, blob, embedded_put, embedding_schema, hnsw, put, put_until,
        query, schema, text, vector,
    },
};

const DOCUMENTS: u64 = 120;
const TEXTS: u64 = 40;
/// Large enough that the graph finds what an exact search finds.
const EF: usize = 400;

/// The part of the store file that leads to everything else.
const HEADER_BYTES: usize = 320;
const FLAGS_AT: usize = 9;
/// Of the flipped bits in a store that is not verified, one in this many may cause a page in use to be overwritten.
const OVERWRITTEN_SHARE: u64 = 1_000;

/// The files at one moment, and the expected results.
struct Files {
    store: Vec<u8>,
    snapshots: BTreeMap<String, Vec<u8>>,
    answers: Observations,
}

/// Queries and their results. An error counts as no result.
type Observations = BTreeMap<String, Result<String, String>>;

/// What happened when damaged files were opened.
#[derive(Debug, Default)]
struct Tally {
    rejected: u64,
    warned: u64,
    unanswered: u64,
    without_effect: u64,
    overwritten: u64,
}

fn open(machine: &SimulatedMachine, verify_bytes_max: u64) -> Result<Engine, engine::OpenError> {
    let clock = Arc::new(FakeClock::at(BEGIN_MS));
    let options = Options { clock, verify_bytes_max, ..options() };
    Engine::open_on(machine.disk.clone(), Arc::new(machine.storage.clone()), options)
}

fn write(engine: &Engine, ops: Vec<Op>) {
    for written in engine.write(ops) {
        written.unwrap();
    }
}

/// A history with every feature: collections, an alias, computed vectors, expiry, updates, deletes.
fn fill(engine: &Engine) {
    engine.create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    engine.create_collection("texts", embedding_schema("text:")).unwrap();
    engine.set_alias("alias", "docs").unwrap();
    for round in 0..2 {
        for number in (0..DOCUMENTS).filter(|number| round == 0 || number % 3 == 0) {
            let year = (1900 + number % 20).to_string();
            let v = blob(&vector(number + round));
            let category = format!("c{}", number % 5);
            let values: &[(&str, &[u8])] =
                &[("category", category.as_bytes()), ("year", year.as_bytes()), ("v", &v)];
            let key = format!("doc:{number}");
            let op = match number % 4 {
                0 => put_until(&key, values, BEGIN_MS + 1_000_000 + number),
                _ => put(&key, values),
            };
            write(engine, vec![op]);
        }
    }
    let texts = (0..TEXTS).map(|number| {
        let title = format!("title {number}");
        embedded_put(engine, &format!("text:{number}"), &[("title", title.as_bytes())])
    });
    write(engine, texts.collect());
    let gone = (0..DOCUMENTS).filter(|number| number % 10 == 7);
    let delete = |number| Op::Delete { key: format!("doc:{number}").into(), expected: Expected::Any };
    write(engine, gone.map(delete).collect());
    write(engine, (0..5).map(|number| put(&format!("free:{number}"), &[("a", b"b")])).collect());
}

/// Runs every query.
fn run_queries(engine: &Engine) -> Observations {
    fn note<T, E: ToString>(
        answers: &mut Observations,
        what: String,
        answer: Result<T, E>,
        printable: impl FnOnce(T) -> String,
    ) {
        answers.insert(what, answer.map(printable).map_err(|error| error.to_string()));
    }
    let mut answers = Observations::new();
    let docs = (0..DOCUMENTS + 2).map(|number| format!("doc:{number}"));
    let texts = (0..TEXTS).map(|number| format!("text:{number}"));
    for key in docs.chain(texts).chain((0..6).map(|number| format!("free:{number}"))) {
        note(&mut answers, format!("get {key}"), engine.get(key.as_bytes()), |found| format!("{found:?}"));
        if key.starts_with("text:") {
            let vectors = engine.vectors("texts", key.as_bytes());
            note(&mut answers, format!("vectors {key}"), vectors, |found| format!("{found:?}"));
        }
    }
    let mut collections: Vec<_> = engine.collections();
    collections.iter_mut().for_each(|info| {
        info.memory_bytes = 0;
        info.tail = 0;
    });
    answers.insert("collections".to_owned(), Ok(format!("{collections:?}")));
    for name in ["docs", "alias", "texts"] {
        for near in [3, 77] {
            for exact in [true, false] {
                let target = vector(near);
                let request = query(name, &target, 200).exact(exact).ef_search(Some(EF));
                note(
                    &mut answers,
                    format!("search {name} near {near}, exact {exact}"),
                    engine.search(&request),
                    |found| format!("{:?}", found.hits),
                );
            }
        }
        let page = engine.scroll(name, None, None, 500);
        note(&mut answers, format!("scroll {name}"), page, |page| {
            format!("{:?}", page.documents.iter().map(|document| text(&document.key)).collect::<Vec<_>>())
        });
        for filter in ["*", "@year:[1903 1909]", "@category:{c1|c4}"] {
            let count = engine
                .parse_filter(name, filter)
                .map_err(|error| error.to_string())
                .and_then(|parsed| engine.count(name, Some(&parsed)).map_err(|error| error.to_string()));
            note(&mut answers, format!("count {filter} in {name}"), count, |count| count.to_string());
        }
    }
    answers
}

impl Files {
    /// The files after the engine was closed, or after the machine was switched off.
    fn after(closed: bool) -> Files {
        let machine = SimulatedMachine::default();
        let engine = open(&machine, u64::MAX).unwrap();
        fill(&engine);
        engine.close();
        drop(engine);
        // Changes that are in no snapshot.
        let engine = open(&machine, u64::MAX).unwrap();
        if closed {
            write(&engine, vec![put("free:5", &[("a", b"b")])]);
            engine.close();
            drop(engine);
        } else {
            let again = (0..DOCUMENTS).filter(|number| number % 6 == 0 && number % 10 != 7).map(|number| {
                let found = engine.get(format!("doc:{number}").as_bytes()).unwrap().unwrap();
                Op::Put {
                    key: found.key.into(),
                    fields: found.fields,
                    expires_at_ms: found.expires_at_ms,
                    vectors: Vec::new(),
                    expected: Expected::Any,
                }
            });
            write(&engine, again.collect());
        }
        let snapshots = machine.snapshots();
        assert_eq!(snapshots.len(), 2, "{:?}", snapshots.keys());
        let store = machine.disk.bytes();
        let engine = open(&SimulatedMachine::with_files(store.clone(), &snapshots), u64::MAX).unwrap();
        let answers = run_queries(&engine);
        assert!(answers.values().all(Result::is_ok), "{answers:?}");
        assert_eq!(engine.warnings(), [] as [&str; 0]);
        engine.close();
        Files { store, snapshots, answers }
    }

    /// Opens the store with damaged snapshots, which it does not need.
    fn check_derived(&self, snapshots: &BTreeMap<String, Vec<u8>>, how: &str, tally: &mut Tally) {
        // The store is intact, so there is nothing to verify.
        let engine = open(&SimulatedMachine::with_files(self.store.clone(), snapshots), 0)
            .unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!(run_queries(&engine), self.answers, "{how}");
        let warnings = engine.warnings();
        let is_warned =
            warnings.iter().any(|warning| warning.contains("is not used, all documents are read again"));
        assert!(is_warned, "{how}: {warnings:?}");
        tally.warned += 1;
        engine.close();
    }

    /// Opens these files, damaged as `how` describes, and runs every query.
    fn check(&self, store: Vec<u8>, verify_bytes_max: u64, how: &str, tally: &mut Tally) {
        let engine = match open(&SimulatedMachine::with_files(store, &self.snapshots), verify_bytes_max) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(error.to_string().len() > 20, "{how}: {error}");
                tally.rejected += 1;
                return;
            }
        };
        let warnings = engine.warnings();
        let answers = run_queries(&engine);
        let mut unanswered = false;
        for (name, answer) in &answers {
            match answer {
                Ok(answer) => assert!(
                    self.answers[name].as_ref() == Ok(answer) || !warnings.is_empty(),
                    "{how}: {name} returned {answer}, not {:?}",
                    self.answers[name]
                ),
                Err(_) => unanswered = true,
            }
        }
        let written = engine.write(vec![put("doc:new", &[("v", &blob(&vector(1)))])]);
        if written[0].is_ok() {
            match engine.get(b"doc:new") {
                Ok(Some(_)) => {}
                // A list of free pages that contains one in use: only reading the whole file detects it.
                Ok(None) if verify_bytes_max == 0 => tally.overwritten += 1,
                Ok(None) => panic!("{how}: an acknowledged document is missing"),
                Err(_) => unanswered = true,
            }
        }
        engine.close();
        let after = engine.warnings();
        assert!(!after.iter().any(|warning| warning.contains("panicked")), "{how}: {after:?}");
        match (warnings.is_empty(), unanswered) {
            (false, _) => tally.warned += 1,
            (true, true) => tally.unanswered += 1,
            (true, false) => tally.without_effect += 1,
        }
    }
}

/// The seed, which is printed; `DAMAGE_SEED` overrides it.
fn seed() -> u64 {
    std::env::var("DAMAGE_SEED").map_or(7, |text| text.parse().expect("DAMAGE_SEED is a number"))
}

fn damages(default: usize) -> usize {
    std::env::var("DAMAGES").map_or(default, |text| text.parse().expect("DAMAGES is a number"))
}

/// Random bits: in turn anywhere, where something is written, and among the first bytes.
fn bits(bytes: &[u8], count: usize, seed: u64) -> impl Iterator<Item = (usize, u8)> {
    let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let len = bytes.len();
    let mut random = SplitMix64(seed);
    (0..count).map(move |number| {
        let at = match number % 3 {
            0 => random.next() as usize % len,
            1 => written[random.next() as usize % written.len()],
            _ => random.next() as usize % HEADER_BYTES,
        };
        (at, 1 << (random.next() % 8))
    })
}

#[test]
fn a_flipped_bit_in_the_store_never_causes_a_wrong_result() {
    // A file too long to be verified completely is checked in part at opening, and in part by each query.
    for (closed, verify_bytes_max) in [(true, u64::MAX), (false, u64::MAX), (true, 0), (false, 0)] {
        let files = Files::after(closed);
        let (mut tally, count) = (Tally::default(), damages(2000) / 4);
        let flags = (0..8).map(|bit| (FLAGS_AT, 1 << bit));
        for (at, bit) in bits(&files.store, count, seed()).chain(flags) {
            if !closed && (at, bit) == (FLAGS_AT, 1) {
                // Which commit is the last. A machine switched off during a commit leaves the same file, so this
                // cannot be detected.
                continue;
            }
            let mut store = files.store.clone();
            store[at] ^= bit;
            let how = format!("closed {closed}, bit {bit} flipped in byte {at} of the store");
            files.check(store, verify_bytes_max, &how, &mut tally);
        }
        println!(
            "{count} bits flipped in a store of {} bytes, closed {closed}, verified {}, seed {}: {tally:?}",
            files.store.len(),
            verify_bytes_max > 0,
            seed()
        );
        assert!(tally.rejected > 0 && tally.without_effect > 0, "{tally:?}");
        assert!(tally.overwritten <= 1 + count as u64 / OVERWRITTEN_SHARE, "{tally:?}");
    }
}

#[test]
fn a_flipped_bit_in_a_snapshot_is_detected() {
    let files = Files::after(false);
    let (mut tally, count) = (Tally::default(), damages(2000) / 2);
    for (name, bytes) in &files.snapshots {
        for (at, bit) in bits(bytes, count, seed()) {
            let mut snapshots = files.snapshots.clone();
            snapshots.get_mut(name).unwrap()[at] ^= bit;
            let how = format!("bit {bit} flipped in byte {at} of {name}");
            files.check_derived(&snapshots, &how, &mut tally);
        }
    }
    println!("{} bits flipped in snapshots, seed {}: {tally:?}", 2 * count, seed());
    assert_eq!(tally.warned, 2 * count as u64, "each was noticed: {tally:?}");
}

/// Where the frames of a snapshot begin, after its magic bytes.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut at = 8;
    let mut frames = Vec::new();
    while at < bytes.len() {
        frames.push(at);
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        at += 8 + len as usize;
    }
    assert_eq!(at, bytes.len());
    frames
}

/// Lengths to truncate a file to: at and next to these places, and at random ones.
fn cuts(len: usize, places: impl IntoIterator<Item = usize>, random: usize, seed: u64) -> Vec<usize> {
    let beside = |place: usize| [place.saturating_sub(1), place, place + 1];
    let mut cuts: Vec<usize> = places.into_iter().flat_map(beside).collect();
    let mut seeds = SplitMix64(seed);
    cuts.extend((0..random).map(|_| seeds.next() as usize % len));
    cuts.retain(|cut| *cut < len);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

#[test]
fn a_truncated_snapshot_is_discarded() {
    let files = Files::after(false);
    let mut tally = Tally::default();
    let mut count = 0;
    for (name, bytes) in &files.snapshots {
        let places = frames(bytes).into_iter().flat_map(|frame| [frame, frame + 4, frame + 8]).chain([0, 8]);
        for len in cuts(bytes.len(), places, 500, seed()) {
            let mut snapshots = files.snapshots.clone();
            snapshots.get_mut(name).unwrap().truncate(len);
            files.check_derived(&snapshots, &format!("{name} cut to {len} bytes"), &mut tally);
            count += 1;
        }
    }
    println!("snapshots cut at {count} places, seed {}: {tally:?}", seed());
    assert_eq!(tally.warned, count, "each was noticed: {tally:?}");
}

#[test]
fn a_truncated_store_is_rejected_or_complete() {
    const PAGE_BYTES: usize = 4096;
    for closed in [true, false] {
        let files = Files::after(closed);
        let mut tally = Tally::default();
        let len = files.store.len();
        let cuts = cuts(len, (0..len).step_by(PAGE_BYTES), 1000, seed());
        for cut in &cuts {
            let how = format!("closed {closed}, the store cut to {cut} of {len} bytes");
            let mut store = files.store.clone();
            store.truncate(*cut);
            if *cut == 0 {
                // A valid new store: deleting the file has the same effect.
                continue;
            }
            files.check(store, u64::MAX, &how, &mut tally);
        }
        println!(
            "a store of {len} bytes cut at {} places, closed {closed}, seed {}: {tally:?}",
            cuts.len(),
            seed()
        );
    }
}
