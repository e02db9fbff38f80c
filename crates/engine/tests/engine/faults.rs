//! Power fails, or one disk call fails, at any moment of several sessions: no acknowledged write is lost, no write is
//! partly applied, and searches find only documents that the store contains.
//!
//! `FAULT_SEEDS=10000 cargo test --release -p engine --test engine power_is_lost -- --nocapture` is the long run.

use std::{collections::BTreeMap, sync::Arc};

use engine::{Algorithm, Cpu, Durability, Engine, Metric, Options, SystemClock};

use crate::{
    crash_storage::SimulatedMachine,
    disks::{Fault, SplitMix64},
    test_engine::{hnsw, schema, vector},
    versions::{GROUP, KEYS, SESSIONS, check_search, op, seeds, version},
};

const GROUPS: usize = 6;

/// The version of a document, or `None` if it does not exist.
type Content = Option<u64>;

#[derive(Clone, Debug, Default)]
struct AcknowledgedWrites {
    acknowledged: BTreeMap<u64, Content>,
    /// Submitted, and rejected or not answered.
    uncertain: BTreeMap<u64, Vec<Content>>,
    versions: u64,
}

pub(crate) fn options() -> Options {
    Options {
        data_dir: "(a simulated machine)".into(),
        cpu: Cpu::detect(),
        clock: Arc::new(SystemClock),
        cache_bytes: 1 << 20,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        verify_bytes_max: 0,
        durability: Durability::Always,
        tail_max: 8,
        index_threads: 1,
        lower_priority: || {},
        on_read_only: |_| {},
    }
}

fn open(machine: &SimulatedMachine) -> Result<Engine, engine::OpenError> {
    Engine::open_on(machine.disk.clone(), Arc::new(machine.storage.clone()), options())
}

/// Runs until the end, or until the disk fails.
fn run_workload(machine: &SimulatedMachine, random: &mut SplitMix64) -> AcknowledgedWrites {
    let mut writes = AcknowledgedWrites::default();
    for session in 0..SESSIONS {
        let Ok(engine) = open(machine) else { break };
        let failed = machine.disk.syncs_failed();
        if session == 0 && engine.create_collection("docs", schema("doc:", hnsw(), Metric::L2)).is_err() {
            break;
        }
        for _ in 0..GROUPS {
            let mut submitted = BTreeMap::new();
            for _ in 0..GROUP {
                let content = (!random.next().is_multiple_of(4)).then(|| {
                    writes.versions += 1;
                    writes.versions
                });
                submitted.insert(random.next() % KEYS, content);
            }
            let ops = submitted.iter().map(|(number, content)| op(*number, *content));
            let results = engine.write(ops.collect());
            for ((number, content), result) in submitted.into_iter().zip(results) {
                match result {
                    Ok(_) => {
                        assert_eq!(machine.disk.syncs_failed(), failed, "acknowledged after a failed sync");
                        writes.acknowledged.insert(number, content);
                        writes.uncertain.remove(&number);
                    }
                    Err(_) => writes.uncertain.entry(number).or_default().push(content),
                }
            }
        }
        engine.close();
    }
    writes
}

impl AcknowledgedWrites {
    /// Opens the remaining files without repair, and compares.
    fn check(&self, machine: &SimulatedMachine, how: &str) {
        let engine = open(machine).unwrap_or_else(|error| panic!("{how}: {error}"));
        let Ok(info) = engine.collection("docs") else {
            assert!(self.acknowledged.is_empty(), "{how}: the collection is lost");
            return;
        };
        let mut live = BTreeMap::new();
        for number in 0..KEYS {
            let found = version(&engine, number, how);
            let acknowledged = self.acknowledged.get(&number).copied().flatten();
            let uncertain = self.uncertain.get(&number).is_some_and(|contents| contents.contains(&found));
            assert!(
                found == acknowledged || uncertain,
                "{how}: document {number} has version {found:?}, acknowledged was {acknowledged:?}"
            );
            live.extend(found.map(|version| (number, version)));
        }
        assert_eq!(info.documents, live.len() as u64, "{how}: {:?}", engine.warnings());
        for near in 0..3 {
            check_search(&engine, &live, &vector(1000 + near), how);
        }
        // The engine continues to work.
        let written = engine.write(vec![op(0, Some(1_000_000))]);
        assert!(written[0].is_ok(), "{how}: {written:?}");
        engine.close();
    }
}

#[test]
fn power_is_lost_at_any_moment() {
    assert!(matches!(hnsw(), Algorithm::Hnsw { .. }));
    let baseline = SimulatedMachine::default();
    run_workload(&baseline, &mut SplitMix64(1));
    let calls = baseline.disk.calls();
    let seeds = seeds(500);
    for seed in 1..=seeds {
        let mut random = SplitMix64(seed);
        let call = 1 + random.next() % calls;
        let machine = SimulatedMachine::with_fault(Fault::From { call });
        let writes = run_workload(&machine, &mut random);
        writes.check(&machine.after_power_loss(seed), &format!("seed {seed}, power lost at call {call}"));
    }
    println!("{seeds} power losses among about {calls} calls to the disk, seeds 1 to {seeds}: nothing lost");
}

#[test]
fn any_disk_call_may_fail() {
    let mut call = 1;
    loop {
        let machine = SimulatedMachine::with_fault(Fault::Once { call });
        let writes = run_workload(&machine, &mut SplitMix64(call));
        if machine.disk.calls() < call {
            break;
        }
        writes.check(&machine.without_faults(), &format!("call {call} failed"));
        writes.check(&machine.after_power_loss(call), &format!("call {call} failed, then power was lost"));
        call += 1;
    }
    println!("each of {} calls to the disk failed once: nothing lost", call - 1);
}
