//! When writes become durable: before the answer, within a second, or later; and what happens if they cannot.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{Clock, Durability, Engine, Metric, Op, Options, SystemClock, WriteError};

use crate::{
    crash_storage::SimulatedMachine,
    disks::Fault,
    faults,
    test_engine::{blob, hnsw, put, query, schema, vector, wait_until},
};

/// A clock whose [`Clock::elapsed`] advances only on request.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) fn options(durability: Durability, clock: &Arc<ManualClock>) -> Options {
    Options { durability, clock: clock.clone(), ..faults::options() }
}

/// An engine with a collection, on a machine that may lose power.
struct DurabilityTest {
    machine: SimulatedMachine,
    clock: Arc<ManualClock>,
    durability: Durability,
    engine: Engine,
}

impl DurabilityTest {
    fn new(durability: Durability) -> DurabilityTest {
        let (machine, clock) = (SimulatedMachine::default(), Arc::new(ManualClock::default()));
        let engine = open(&machine, &options(durability, &clock));
        engine.create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
        DurabilityTest { machine, clock, durability, engine }
    }

    fn put(&self, number: u64) -> Result<u64, WriteError> {
        self.engine.write(vec![document(number)]).remove(0).map(|written| written.seq)
    }

    fn put_all(&self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            self.put(number).unwrap();
        }
    }

    fn durable(&self) -> u64 {
        self.engine.stats().unwrap().durable_seq
    }

    /// The documents after a power loss at this moment, and all warnings.
    fn after_power_loss(&self) -> (Vec<String>, Vec<String>) {
        let engine = open(&self.machine.after_power_loss(1), &options(self.durability, &self.clock));
        (keys(&engine), engine.warnings())
    }
}

fn open(machine: &SimulatedMachine, options: &Options) -> Engine {
    Engine::open_on(machine.disk.clone(), Arc::new(machine.storage.clone()), options.clone()).unwrap()
}

fn document(number: u64) -> Op {
    put(&format!("doc:{number}"), &[("v", &blob(&vector(number)))])
}

/// The documents that searches find, each nearest to its own vector, in their order.
fn keys(engine: &Engine) -> Vec<String> {
    let mut keys = crate::test_engine::keys(&engine.search(&query("docs", &vector(0), 1000)).unwrap());
    assert_eq!(engine.collection("docs").unwrap().documents, keys.len() as u64);
    for key in &keys {
        let target = vector(key["doc:".len()..].parse().unwrap());
        let nearest = engine.search(&query("docs", &target, 1)).unwrap();
        assert_eq!((&crate::test_engine::keys(&nearest)[0], nearest.hits[0].distance), (key, Some(0.0)));
    }
    keys.sort();
    keys
}

#[test]
fn with_always_a_write_is_durable_when_answered() {
    let test = DurabilityTest::new(Durability::Always);
    for number in 0..3 {
        let before = test.machine.disk.syncs();
        let seq = test.put(number).unwrap();
        assert_eq!((test.durable(), test.machine.disk.syncs() - before), (seq, 2));
    }
    assert_eq!(test.after_power_loss().0.len(), 3);
}

#[test]
fn writes_are_durable_one_second_after_the_first_unsynced_one() {
    for (durability, delay_ms) in [(Durability::EverySec, 1000), (Durability::None, 30_000)] {
        let test = DurabilityTest::new(durability);
        let syncs = test.machine.disk.syncs();
        test.clock.advance(10 * delay_ms);
        assert_eq!((test.put(1).unwrap(), test.durable()), (1, 0));
        test.clock.advance(delay_ms - 1);
        for number in 2..=100 {
            test.put(number).unwrap();
        }
        assert_eq!((test.durable(), test.machine.disk.syncs()), (0, syncs), "{durability:?}");
        assert!(test.after_power_loss().0.is_empty(), "{durability:?}");
        assert_eq!(keys(&test.engine).len(), 100, "unsynced writes are found too");

        test.clock.advance(1);
        assert_eq!((test.put(101).unwrap(), test.durable()), (101, 101), "{durability:?}");
        assert_eq!(test.machine.disk.syncs() - syncs, 2, "{durability:?}: one commit for all of them");
        assert_eq!(test.after_power_loss().0.len(), 101, "{durability:?}");
    }
}

#[test]
fn the_last_write_becomes_durable_without_further_writes() {
    let test = DurabilityTest::new(Durability::EverySec);
    test.put(1).unwrap();
    let syncs = test.machine.disk.syncs();
    test.clock.advance(1000);
    wait_until("the last write is never made durable", || test.durable() == 1);
    assert_eq!(test.after_power_loss().0, ["doc:1"]);
    assert_eq!(test.machine.disk.syncs() - syncs, 2);
}

#[test]
fn many_unsynced_bytes_become_durable_early() {
    let test = DurabilityTest::new(Durability::None);
    let long = vec![7; 4 << 20];
    let documents = (1..100u64).find(|number| {
        let op = put(&format!("doc:{number}"), &[("title", &long)]);
        test.engine.write(vec![op]).remove(0).unwrap();
        test.durable() > 0
    });
    let unsynced_mib = documents.expect("400 MiB are unsynced") * 4;
    assert!((64..=72).contains(&unsynced_mib), "{unsynced_mib} MiB were unsynced; 64 are allowed");
}

#[test]
fn ddl_operations_are_durable_immediately() {
    let test = DurabilityTest::new(Durability::None);
    let engine = &test.engine;
    let durable = || {
        let all = engine.stats().unwrap();
        all.durable_seq == all.last_seq
    };
    let change = |what: &str, number: u64, change: &dyn Fn()| {
        test.put(number).unwrap();
        assert!(!durable(), "{what}");
        change();
        assert!(durable(), "{what}, and what was written before");
    };
    change("a collection", 1, &|| {
        engine.create_collection("more", schema("more:", hnsw(), Metric::L2)).unwrap();
    });
    change("an alias", 2, &|| engine.set_alias("other", "docs").unwrap());
    change("a rebuild", 3, &|| {
        engine.rebuild_collection("docs", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    });
    change("a switch", 4, &|| {
        engine.switch_collection("docs").unwrap();
    });
    change("a drop", 5, &|| engine.drop_collection("more", engine::DropMode::KeepDocuments).unwrap());
    change("a backup", 6, &|| {
        engine.back_up(std::io::sink()).unwrap();
    });
    let expired = crate::test_engine::put_until("doc:expired", &[], 1);
    engine.write(vec![expired]).remove(0).unwrap();
    wait_until("an expired document is not durably deleted", durable);
}

#[test]
fn closing_makes_everything_durable() {
    for durability in Durability::ALL {
        let test = DurabilityTest::new(durability);
        test.put_all(1..=10);
        test.engine.close();
        let (found, warnings) = test.after_power_loss();
        assert_eq!((found.len(), warnings), (10, vec![]), "{durability:?}");
        // Also if no snapshot has to be written.
        let options = options(durability, &test.clock);
        let machine = test.machine.after_power_loss(1);
        let engine = open(&machine, &options);
        engine.write(vec![put("in no collection", &[])]).remove(0).unwrap();
        engine.close();
        let remaining = open(&machine.after_power_loss(1), &options);
        assert!(remaining.get(b"in no collection").unwrap().is_some(), "{durability:?}");
    }
}

static READ_ONLY_CALLS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_failed_sync_is_reported_and_makes_the_engine_read_only() {
    let (machine, clock) = (SimulatedMachine::default(), Arc::new(ManualClock::default()));
    let on_read_only = |reason: &str| {
        assert!(reason.contains("changes 2 to 3 were acknowledged but are not durable"), "{reason}");
        READ_ONLY_CALLS.fetch_add(1, Ordering::SeqCst);
    };
    let options = Options { on_read_only, ..options(Durability::EverySec, &clock) };
    let engine = open(&machine, &options);
    engine.create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    let test = DurabilityTest { machine, clock, durability: Durability::EverySec, engine };
    test.put(1).unwrap();
    test.clock.advance(1000);
    wait_until("the first write is never made durable", || test.durable() == 1);
    test.put(2).unwrap();
    test.put(3).unwrap();
    assert_eq!(test.engine.writable(), Ok(()));
    test.machine.disk.fail(Fault::From { call: test.machine.disk.calls() + 1 });
    test.clock.advance(1000);
    // Detected without a further write.
    wait_until("the disk failure is not detected", || test.engine.writable().is_err());
    assert_eq!(READ_ONLY_CALLS.load(Ordering::SeqCst), 1);
    assert!(test.engine.writable().unwrap_err().contains("may be lost"));
    let rejected = test.put(4).unwrap_err();
    assert!(matches!(rejected, WriteError::ReadOnly { .. }), "{rejected}");
    test.engine.close();
    let warnings = test.engine.warnings();
    assert!(warnings.iter().any(|warning| warning.contains("was not written")), "{warnings:?}");
    assert_eq!(test.after_power_loss(), (vec!["doc:1".to_owned()], vec![]));
    assert_eq!(READ_ONLY_CALLS.load(Ordering::SeqCst), 1);
}

/// A store on a full disk is reopened, unless that would lose acknowledged writes.
#[test]
fn a_full_disk_loses_no_acknowledged_write() {
    let mut failures = 0;
    for after in 1..40 {
        let test = DurabilityTest::new(Durability::EverySec);
        test.put(1).unwrap();
        test.put(2).unwrap();
        test.clock.advance(1000);
        // The kind of failure depends on the number of the call: this one finds no space.
        let call = (test.machine.disk.calls() + after..).find(|call| call % 3 == 1).unwrap();
        test.machine.disk.fail(Fault::Once { call });
        let written = test.put(3);
        if written.is_ok() {
            continue;
        }
        for number in [1, 2] {
            let key = format!("doc:{number}");
            // An error is allowed, a missing document is not.
            let is_lost = test.engine.get(key.as_bytes()).is_ok_and(|document| document.is_none());
            assert!(!is_lost, "{after}: {key} was acknowledged, but is lost");
        }
        let rejected = test.put(4).unwrap_err();
        assert!(matches!(rejected, WriteError::ReadOnly { .. }), "{after}: {rejected}");
        assert!(test.engine.writable().unwrap_err().contains("changes 1 to 2"), "{after}");
        test.engine.close();
        let (found, warnings) = test.after_power_loss();
        assert!(found.is_empty() || found.len() == 3, "{after}: {found:?}");
        assert_eq!(warnings, [] as [&str; 0], "{after}");
        failures += 1;
    }
    assert!(failures > 10, "only {failures} writes failed");
}

/// Otherwise the store would reuse its sequence numbers and the snapshot would look valid.
#[test]
fn a_snapshot_ahead_of_the_store_is_removed_before_its_numbers_are_reused() {
    let test = DurabilityTest::new(Durability::Always);
    test.put_all(1..=3);
    let earlier = test.machine.disk.bytes();
    test.put_all(4..=6);
    test.engine.close();
    let ahead: BTreeMap<String, Vec<u8>> = test.machine.snapshots();
    assert_eq!(ahead.len(), 1);

    let machine = SimulatedMachine::with_files(earlier, &ahead);
    let options = options(Durability::Always, &test.clock);
    let engine = open(&machine, &options);
    let warnings = engine.warnings();
    assert!(warnings[0].contains("it includes changes up to 6, the store only up to 3"), "{warnings:?}");
    (14..=20).for_each(|number| drop(engine.write(vec![document(number)])));
    for seed in 0..20 {
        let engine = open(&machine.after_power_loss(seed), &options);
        assert_eq!(engine.warnings(), [] as [&str; 0], "seed {seed}");
        assert_eq!(keys(&engine), keys_of([1, 2, 3].into_iter().chain(14..=20)), "seed {seed}");
    }
}

fn keys_of(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    let mut keys: Vec<String> = numbers.map(|number| format!("doc:{number}")).collect();
    keys.sort();
    keys
}
