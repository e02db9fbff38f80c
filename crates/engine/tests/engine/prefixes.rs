//! Power fails at any moment of several sessions in which writes are answered before they are durable: the remaining
//! state is the one after some write, which is not older than the last durable one, and no snapshot is ahead of it.
//!
//! `FAULT_SEEDS=10000 cargo test --release -p engine --test engine prefixes -- --nocapture` is the long run.

use std::{collections::BTreeMap, sync::Arc};

use engine::{Durability, Engine, Metric};

use crate::{
    crash_storage::SimulatedMachine,
    disks::{Fault, SplitMix64},
    durability::{ManualClock, options},
    test_engine::{hnsw, schema, vector},
    versions::{GROUP, KEYS, SESSIONS, check_search, op, seeds, version},
};

const GROUPS: u64 = 12;

/// The version of each existing document.
type Documents = BTreeMap<u64, u64>;

/// Possible states after a power loss, oldest first: the last state that is certainly durable, and every later one.
struct PossibleStates {
    /// With the sequence number of its last change; `None` for the write in progress.
    states: Vec<(Option<u64>, Documents)>,
    has_collection: bool,
    /// Whether the workload ran to its end.
    completed: bool,
}

impl PossibleStates {
    /// Drops the states before the change `seq`, which is durable.
    fn settle(&mut self, seq: u64) {
        let is_earlier = |(last, _): &(Option<u64>, Documents)| last.is_some_and(|last| last < seq);
        let earlier = self.states.iter().take_while(|state| is_earlier(state)).count();
        self.states.drain(..earlier);
    }
}

fn open(machine: &SimulatedMachine, durability: Durability, clock: &Arc<ManualClock>) -> Option<Engine> {
    let storage = Arc::new(machine.storage.clone());
    Engine::open_on(machine.disk.clone(), storage, options(durability, clock)).ok()
}

/// Runs until the end, or until the disk fails.
fn run_workload(
    machine: &SimulatedMachine,
    durability: Durability,
    random: &mut SplitMix64,
) -> PossibleStates {
    let clock = Arc::new(ManualClock::default());
    let mut possible =
        PossibleStates { states: vec![(Some(0), Documents::new())], has_collection: false, completed: false };
    let mut versions = 0;
    for session in 0..SESSIONS {
        let Some(engine) = open(machine, durability, &clock) else { return possible };
        if session == 0 {
            if engine.create_collection("docs", schema("doc:", hnsw(), Metric::L2)).is_err() {
                return possible;
            }
            possible.has_collection = true;
        }
        for _ in 0..GROUPS {
            if random.next().is_multiple_of(5) {
                clock.advance(u64::try_from(durability.delay_max().as_millis()).unwrap());
            }
            let mut after = possible.states.last().unwrap().1.clone();
            let mut submitted = BTreeMap::new();
            for _ in 0..GROUP {
                versions += 1;
                let version = (!random.next().is_multiple_of(4)).then_some(versions);
                submitted.insert(random.next() % KEYS, version);
            }
            let results =
                engine.write(submitted.iter().map(|(number, version)| op(*number, *version)).collect());
            for (number, version) in submitted {
                match version {
                    Some(version) => after.insert(number, version),
                    None => after.remove(&number),
                };
            }
            if results.iter().any(Result::is_err) {
                possible.states.push((None, after));
                return possible;
            }
            let before = possible.states.last().unwrap().0.unwrap();
            let written = results.iter().map(|result| result.as_ref().unwrap().seq).max().unwrap();
            // Deletes of missing documents change nothing and have no sequence number.
            if written > before {
                possible.states.push((Some(written), after));
            }
            let durable = match durability {
                Durability::Always => Ok(written),
                _ => engine.stats().map(|stats| stats.durable_seq),
            };
            possible.settle(durable.unwrap_or(0));
        }
        engine.close();
        if !engine.stats().is_ok_and(|stats| stats.durable_seq == stats.last_seq) {
            // The disk failed, so the run ends as if the process had crashed.
            return possible;
        }
        possible.states.drain(..possible.states.len() - 1);
    }
    possible.completed = true;
    possible
}

/// The existing documents, according to the store and to searches.
fn live(engine: &Engine, how: &str) -> Documents {
    let exists = |number| version(engine, number, how).map(|version| (number, version));
    let live: Documents = (0..KEYS).filter_map(exists).collect();
    let warnings = engine.warnings();
    assert_eq!(warnings, [] as [&str; 0], "{how}");
    check_search(engine, &live, &vector(1_000_000), how);
    assert_eq!(engine.collection("docs").unwrap().documents, live.len() as u64, "{how}");
    live
}

/// Opens the remaining files, checks that the state is a possible one, writes more and opens again. Returns how many
/// acknowledged groups were lost, and how many could have been.
fn check(
    possible: &PossibleStates,
    remaining: &SimulatedMachine,
    durability: Durability,
    random: &mut SplitMix64,
    how: &str,
) -> (usize, usize) {
    let clock = Arc::new(ManualClock::default());
    let open = || open(remaining, durability, &clock).unwrap_or_else(|| panic!("{how}: it does not open"));
    let engine = open();
    if engine.collection("docs").is_err() {
        assert!(!possible.has_collection, "{how}: the collection is lost");
        return (0, 0);
    }
    let mut state = live(&engine, how);
    let states = &possible.states;
    let found = states.iter().rposition(|(_, possible)| *possible == state);
    let found = found.unwrap_or_else(|| panic!("{how}: {state:?} is none of {states:?}"));
    // These writes reuse the sequence numbers of the lost ones.
    for version in 2_000_000..2_000_000 + GROUPS {
        let number = random.next() % KEYS;
        assert!(engine.write(vec![op(number, Some(version))])[0].is_ok(), "{how}");
        state.insert(number, version);
    }
    engine.close();
    assert_eq!(live(&open(), how), state, "{how}, and opened again");
    let acknowledged = states.iter().filter(|(last, _)| last.is_some()).count();
    (acknowledged.saturating_sub(found + 1), acknowledged - 1)
}

fn lose_power(durability: Durability, seeds: u64) -> (usize, usize) {
    let baseline = SimulatedMachine::default();
    assert!(run_workload(&baseline, durability, &mut SplitMix64(1)).completed);
    let calls = baseline.disk.calls();
    let (mut lost, mut unsynced) = (0, 0);
    for seed in 1..=seeds {
        let mut random = SplitMix64(seed);
        let call = 1 + random.next() % calls;
        let machine = SimulatedMachine::with_fault(Fault::From { call });
        let possible = run_workload(&machine, durability, &mut random);
        let how = format!("{durability:?}, seed {seed}, power lost at call {call}");
        let remaining = machine.after_power_loss(seed);
        let (groups_lost, groups_unsynced) = check(&possible, &remaining, durability, &mut random, &how);
        lost += groups_lost;
        unsynced += groups_unsynced;
    }
    (lost, unsynced)
}

#[test]
fn a_power_loss_leaves_a_prefix_of_the_answered_writes() {
    for durability in Durability::ALL {
        let seeds = seeds(200);
        let (lost, unsynced) = lose_power(durability, seeds);
        println!(
            "{durability:?}: {seeds} power losses, {lost} of {unsynced} acknowledged but unsynced groups lost"
        );
        if durability == Durability::Always {
            assert_eq!(unsynced, 0, "writes are durable when answered");
        } else {
            assert!(lost > 0, "{durability:?}: no unsynced group was ever lost, so the test is ineffective");
        }
    }
}

#[test]
fn any_disk_call_may_fail_while_writes_are_unsynced() {
    let mut call = 1;
    loop {
        let machine = SimulatedMachine::with_fault(Fault::Once { call });
        let mut random = SplitMix64(call);
        let possible = run_workload(&machine, Durability::EverySec, &mut random);
        if machine.disk.calls() < call {
            break;
        }
        for (remaining, how) in
            [(machine.without_faults(), "killed"), (machine.after_power_loss(call), "power lost")]
        {
            let how = format!("call {call} failed, then {how}");
            check(&possible, &remaining, Durability::EverySec, &mut random, &how);
        }
        call += 1;
    }
}
