//! SampleFiles are truncated, or one of their bits is flipped: every query result is still correct or an error, or the
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

/// The files of a data directory, and the results that queries return for them.
struct SampleFiles {
    store: Vec<u8>,
    snapshots: BTreeMap<String, Vec<u8>>,
    results: QueryResults,
}

/// Queries and their results. An error counts as no result.
type QueryResults = BTreeMap<String, Result<String, String>>;

/// What happened when damaged files were opened.
#[derive(Debug, Default)]
struct DamageCounts {
    rejected: u64,
    warned: u64,
    failed_queries: u64,
    without_effect: u64,
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
    let deleted = (0..DOCUMENTS).filter(|number| number % 10 == 7);
    let delete = |number| Op::Delete { key: format!("doc:{number}").into(), expected: Expected::Any };
    write(engine, deleted.map(delete).collect());
    write(engine, (0..5).map(|number| put(&format!("free:{number}"), &[("a", b"b")])).collect());
}

/// Runs every query.
fn run_queries(engine: &Engine) -> QueryResults {
    fn record<T, E: ToString>(
        results: &mut QueryResults,
        what: String,
        result: Result<T, E>,
        printable: impl FnOnce(T) -> String,
    ) {
        results.insert(what, result.map(printable).map_err(|error| error.to_string()));
    }
    let mut results = QueryResults::new();
    let docs = (0..DOCUMENTS + 2).map(|number| format!("doc:{number}"));
    let texts = (0..TEXTS).map(|number| format!("text:{number}"));
    for key in docs.chain(texts).chain((0..6).map(|number| format!("free:{number}"))) {
        record(&mut results, format!("get {key}"), engine.get(key.as_bytes()), |found| format!("{found:?}"));
        if key.starts_with("text:") {
            let vectors = engine.vectors("texts", key.as_bytes());
            record(&mut results, format!("vectors {key}"), vectors, |found| format!("{found:?}"));
        }
    }
    let mut collections: Vec<_> = engine.collections();
    collections.iter_mut().for_each(|info| {
        info.memory_bytes = 0;
        info.tail = 0;
    });
    results.insert("collections".to_owned(), Ok(format!("{collections:?}")));
    for name in ["docs", "alias", "texts"] {
        for near in [3, 77] {
            for exact in [true, false] {
                let target = vector(near);
                let request = query(name, &target, 200).exact(exact).ef_search(Some(EF));
                record(
                    &mut results,
                    format!("search {name} near {near}, exact {exact}"),
                    engine.search(&request),
                    |found| format!("{:?}", found.hits),
                );
            }
        }
        let page = engine.scroll(name, None, None, 500);
        record(&mut results, format!("scroll {name}"), page, |page| {
            format!("{:?}", page.documents.iter().map(|document| text(&document.key)).collect::<Vec<_>>())
        });
        for filter in ["*", "@year:[1903 1909]", "@category:{c1|c4}"] {
            let count = engine
                .parse_filter(name, filter)
                .map_err(|error| error.to_string())
                .and_then(|parsed| engine.count(name, Some(&parsed)).map_err(|error| error.to_string()));
            record(&mut results, format!("count {filter} in {name}"), count, |count| count.to_string());
        }
    }
    results
}

impl SampleFiles {
    /// The files after the engine was closed, or after the machine lost power.
    fn after(closed: bool) -> SampleFiles {
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
            let rewritten =
                (0..DOCUMENTS).filter(|number| number % 6 == 0 && number % 10 != 7).map(|number| {
                    let found = engine.get(format!("doc:{number}").as_bytes()).unwrap().unwrap();
                    Op::Put {
                        key: found.key.into(),
                        fields: found.fields,
                        expires_at_ms: found.expires_at_ms,
                        vectors: Vec::new(),
                        expected: Expected::Any,
                    }
                });
            write(&engine, rewritten.collect());
        }
        let snapshots = machine.snapshots();
        assert_eq!(snapshots.len(), 2, "{:?}", snapshots.keys());
        let store = machine.disk.bytes();
        let engine = open(&SimulatedMachine::with_files(store.clone(), &snapshots), u64::MAX).unwrap();
        let results = run_queries(&engine);
        assert!(results.values().all(Result::is_ok), "{results:?}");
        assert_eq!(engine.warnings(), [] as [&str; 0]);
        engine.close();
        SampleFiles { store, snapshots, results }
    }

    /// Opens the store with damaged snapshots, which it does not need.
    fn check_derived(&self, snapshots: &BTreeMap<String, Vec<u8>>, how: &str, counts: &mut DamageCounts) {
        // The store is intact, so there is nothing to verify.
        let engine = open(&SimulatedMachine::with_files(self.store.clone(), snapshots), 0)
            .unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!(run_queries(&engine), self.results, "{how}");
        let warnings = engine.warnings();
        let is_warned =
            warnings.iter().any(|warning| warning.contains("is not used, all documents are read again"));
        assert!(is_warned, "{how}: {warnings:?}");
        counts.warned += 1;
        engine.close();
    }

    /// Opens these files, damaged as `how` describes, and runs every query.
    fn check(&self, store: Vec<u8>, verify_bytes_max: u64, how: &str, counts: &mut DamageCounts) {
        let machine = SimulatedMachine::with_files(store, &self.snapshots);
        let engine = match open(&machine, verify_bytes_max) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(error.to_string().len() > 20, "{how}: {error}");
                counts.rejected += 1;
                return;
            }
        };
        let warnings = engine.warnings();
        let results = run_queries(&engine);
        let mut failed_queries = false;
        for (name, result) in &results {
            match result {
                Ok(result) => assert!(
                    self.results[name].as_ref() == Ok(result) || !warnings.is_empty(),
                    "{how}: {name} returned {result}, not {:?}",
                    self.results[name]
                ),
                Err(_) => failed_queries = true,
            }
        }
        let acknowledged = write_to_free_pages(&engine);
        let is_present = |engine: &Engine, what: &str| {
            for key in &acknowledged {
                match engine.get(key.as_bytes()) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{how}: {key}, which was acknowledged, is missing {what}"),
                    Err(_) => return false,
                }
            }
            true
        };
        failed_queries |= !is_present(&engine, "after the writes");
        // The new rows are where nothing else was.
        for (name, result) in run_queries(&engine) {
            if let (true, Ok(result)) = (name.starts_with("get ") || name.starts_with("vectors "), result) {
                assert_eq!(self.results[&name], Ok(result), "{how}: {name} after writes");
            }
        }
        let unwritable = engine.writable().err().unwrap_or_default();
        assert!(!unwritable.contains("committer panicked"), "{how}: {unwritable}");
        engine.close();
        let after = engine.warnings();
        assert!(!after.iter().any(|warning| warning.contains("panicked")), "{how}: {after:?}");
        drop(engine);
        if let Ok(engine) = open(&machine, verify_bytes_max) {
            failed_queries |= !is_present(&engine, "after reopening");
            engine.close();
        }
        match (warnings.is_empty(), failed_queries) {
            (false, _) => counts.warned += 1,
            (true, true) => counts.failed_queries += 1,
            (true, false) => counts.without_effect += 1,
        }
    }
}

/// Writes new documents in several transactions, which put them on pages that were free. Returns the keys of those that
/// were acknowledged.
fn write_to_free_pages(engine: &Engine) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let keys: Vec<String> = (0..6).map(|number| format!("new:{round}:{number}")).collect();
        let ops = keys.iter().map(|key| put(key, &[("a", &[7; 900])])).collect();
        let results = engine.write(ops);
        acknowledged
            .extend(keys.into_iter().zip(results).filter(|(_, result)| result.is_ok()).map(|(key, _)| key));
    }
    acknowledged
}

/// The seed, which each test prints; `DAMAGE_SEED` overrides it.
fn seed() -> u64 {
    std::env::var("DAMAGE_SEED").map_or(7, |text| text.parse().expect("DAMAGE_SEED is a number"))
}

fn damages(default: usize) -> usize {
    std::env::var("DAMAGES").map_or(default, |text| text.parse().expect("DAMAGES is a number"))
}

/// Random bits: in turn anywhere, in a byte that is not zero, and in the header.
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
        let files = SampleFiles::after(closed);
        let (mut counts, count) = (DamageCounts::default(), damages(2000) / 4);
        let flags = (0..8).map(|bit| (FLAGS_AT, 1 << bit));
        for (at, bit) in bits(&files.store, count, seed()).chain(flags) {
            if !closed && (at, bit) == (FLAGS_AT, 1) {
                // This bit selects the last commit. A power loss during a commit leaves the same file, so this
                // cannot be detected.
                continue;
            }
            let mut store = files.store.clone();
            store[at] ^= bit;
            let how = format!("closed {closed}, bit {bit} flipped in byte {at} of the store");
            files.check(store, verify_bytes_max, &how, &mut counts);
        }
        println!(
            "{count} bits flipped in a store of {} bytes, closed {closed}, verified {}, seed {}: {counts:?}",
            files.store.len(),
            verify_bytes_max > 0,
            seed()
        );
        assert!(counts.rejected > 0 && counts.without_effect > 0, "{counts:?}");
    }
}

#[test]
fn a_flipped_bit_in_a_snapshot_is_detected() {
    let files = SampleFiles::after(false);
    let (mut counts, count) = (DamageCounts::default(), damages(2000) / 2);
    for (name, bytes) in &files.snapshots {
        for (at, bit) in bits(bytes, count, seed()) {
            let mut snapshots = files.snapshots.clone();
            snapshots.get_mut(name).unwrap()[at] ^= bit;
            let how = format!("bit {bit} flipped in byte {at} of {name}");
            files.check_derived(&snapshots, &how, &mut counts);
        }
    }
    println!("{} bits flipped in snapshots, seed {}: {counts:?}", 2 * count, seed());
    assert_eq!(counts.warned, 2 * count as u64, "each is reported: {counts:?}");
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

/// Lengths to which a file is truncated: these offsets, the ones next to them, and random ones.
fn cuts(len: usize, offsets: impl IntoIterator<Item = usize>, random: usize, seed: u64) -> Vec<usize> {
    let around = |offset: usize| [offset.saturating_sub(1), offset, offset + 1];
    let mut cuts: Vec<usize> = offsets.into_iter().flat_map(around).collect();
    let mut seeds = SplitMix64(seed);
    cuts.extend((0..random).map(|_| seeds.next() as usize % len));
    cuts.retain(|cut| *cut < len);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

#[test]
fn a_truncated_snapshot_is_discarded() {
    let files = SampleFiles::after(false);
    let mut counts = DamageCounts::default();
    let mut count = 0;
    for (name, bytes) in &files.snapshots {
        let offsets = frames(bytes).into_iter().flat_map(|frame| [frame, frame + 4, frame + 8]).chain([0, 8]);
        for len in cuts(bytes.len(), offsets, 500, seed()) {
            let mut snapshots = files.snapshots.clone();
            snapshots.get_mut(name).unwrap().truncate(len);
            files.check_derived(&snapshots, &format!("{name} cut to {len} bytes"), &mut counts);
            count += 1;
        }
    }
    println!("snapshots cut at {count} offsets, seed {}: {counts:?}", seed());
    assert_eq!(counts.warned, count, "each is reported: {counts:?}");
}

#[test]
fn a_truncated_store_is_rejected_or_complete() {
    const PAGE_BYTES: usize = 4096;
    for closed in [true, false] {
        let files = SampleFiles::after(closed);
        let mut counts = DamageCounts::default();
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
            files.check(store, u64::MAX, &how, &mut counts);
        }
        println!(
            "a store of {len} bytes cut at {} offsets, closed {closed}, seed {}: {counts:?}",
            cuts.len(),
            seed()
        );
    }
}
