//! Power fails at a random moment: a random part of the unsynced writes is lost, in units of 512 bytes.

use proptest::prelude::*;
use store::{Store, StoreError};

use crate::disks::{Disk, Fault};
use crate::model::{self, Model, Transaction};
use crate::{OPTIONS, config};

/// The states that may exist after the power loss: the last durable commit, each later commit that was
/// acknowledged before it was durable, and the commit in progress.
struct PossibleStates(Vec<Model>);

fn run(disk: &Disk, history: &[Transaction]) -> PossibleStates {
    let mut possible = vec![Model::default()];
    let Ok(store) = Store::open_with_backend(disk.clone(), OPTIONS) else { return PossibleStates(possible) };
    for transaction in history {
        let mut after = possible.last().unwrap().clone();
        let Ok(writer) = after.prepare(&store, transaction) else { break };
        if transaction.commit {
            let committed = transaction.commit(writer);
            possible.push(after);
            if committed.is_err() {
                break;
            }
            if transaction.synced {
                assert!(store.is_synced());
            }
            if store.is_synced() {
                possible.drain(..possible.len() - 1);
            }
        }
    }
    PossibleStates(possible)
}

impl PossibleStates {
    /// Reopens the store, verifies that it is in one of these states, and continues from there. Returns the
    /// number of possible states.
    fn check(self, disk: &Disk, next: &Transaction) -> Result<usize, StoreError> {
        let store =
            Store::open_with_backend(disk.clone(), OPTIONS).expect("the store opens without manual recovery");
        let mut found = None;
        for state in &self.0 {
            if state.matches(&store)? {
                found = Some(state.clone());
            }
        }
        let mut found = found.expect("the store is in a state that it had since its last sync");
        found.check(&store)?;
        found.run(&store, next)?;
        found.check(&store)?;
        Ok(self.0.len())
    }
}

/// Loses power at `moment` of the history, between 0 and 1.
fn lose_power(history: &[Transaction], next: &Transaction, moment: f64, seed: u64) -> usize {
    let fault_free = Disk::default();
    run(&fault_free, history);
    let call = 1 + (moment * fault_free.calls() as f64) as u64;
    let disk = Disk::with_fault(Fault::From { call });
    let states = run(&disk, history);
    states.check(&disk.after_power_loss(seed), next).unwrap()
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn never_loses_durable_commits(
        history in prop::collection::vec(model::transaction(10), 1..8),
        next in model::transaction(10),
        moment in 0.0..1.0f64,
        seed in any::<u64>(),
    ) {
        let possible = lose_power(&history, &next, moment, seed);
        prop_assert!(possible <= 2, "only the last commit and the one in progress are possible");
    }

    #[test]
    fn a_prefix_of_the_unsynced_commits_survives(
        history in prop::collection::vec(model::unsynced_transaction(10), 1..12),
        next in model::unsynced_transaction(10),
        moment in 0.0..1.0f64,
        seed in any::<u64>(),
    ) {
        lose_power(&history, &next, moment, seed);
    }
}

/// A killed process leaves the file as redb wrote it. Unsynced commits exist only in its memory.
#[test]
fn a_killed_process_loses_unsynced_commits() {
    let disk = Disk::default();
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    let put = |key: &[u8]| {
        let mut writer = store.write().unwrap();
        writer.put(key, &[], None).unwrap();
        writer
    };
    put(b"durable").commit().unwrap();
    put(b"unsynced").commit_unsynced().unwrap();
    assert!(store.read().unwrap().get(b"unsynced").unwrap().is_some(), "readers see unsynced commits");
    assert_eq!((store.is_synced(), store.synced_seq()), (false, 1));
    let after_kill = || Store::open_with_backend(Disk::with_bytes(disk.bytes()), OPTIONS).unwrap();
    assert_eq!(after_kill().read().unwrap().last_seq().unwrap(), 1);
    let before = disk.syncs();
    store.sync().unwrap();
    assert_eq!((store.is_synced(), store.synced_seq(), disk.syncs() - before), (true, 2, 2));
    store.sync().unwrap();
    assert_eq!(disk.syncs() - before, 2, "syncing again does nothing");
    assert!(after_kill().read().unwrap().get(b"unsynced").unwrap().is_some());
    let mut writer = put(b"with a name");
    writer.set_name("name", &store::NameTarget::Alias("other".to_owned())).unwrap();
    writer.commit_unsynced().unwrap();
    assert!(store.is_synced(), "changes of names are durable immediately");
    put(b"closed").commit_unsynced().unwrap();
    drop(store);
    assert_eq!(after_kill().read().unwrap().last_seq().unwrap(), 4, "closing makes commits durable");
}

/// Creating a store takes several writes. Power may fail at each of them.
#[test]
fn creation_survives_power_loss_at_any_write() {
    let fault_free = Disk::default();
    drop(Store::open_with_backend(fault_free.clone(), OPTIONS).unwrap());
    for call in 1..=fault_free.calls() {
        for seed in 0..8 {
            let disk = Disk::with_fault(Fault::From { call });
            drop(Store::open_with_backend(disk.clone(), OPTIONS));
            let store = Store::open_with_backend(disk.after_power_loss(seed), OPTIONS)
                .unwrap_or_else(|error| panic!("call {call}, seed {seed}: {error}"));
            Model::default().check(&store).unwrap();
        }
    }
}
