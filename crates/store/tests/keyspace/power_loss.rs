//! Power fails at a random moment, and of what was not synced a random part is lost, torn at 512 bytes.

use proptest::prelude::*;
use store::{Store, StoreError};

use crate::disks::{Disk, Fault};
use crate::model::{self, Model, Transaction};
use crate::{OPTIONS, config};

/// What may be there after the disk stopped: the last durable commit, each one since that was acknowledged before it was
/// durable, and the one under way.
struct Outcome(Vec<Model>);

fn run(disk: &Disk, history: &[Transaction]) -> Outcome {
    let mut possible = vec![Model::default()];
    let Ok(store) = Store::open_with_backend(disk.clone(), OPTIONS) else { return Outcome(possible) };
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
    Outcome(possible)
}

impl Outcome {
    /// Opens what is left, finds one of the states in it, and goes on from there. Says how many there might have been.
    fn check(self, disk: &Disk, next: &Transaction) -> Result<usize, StoreError> {
        let store = Store::open_with_backend(disk.clone(), OPTIONS).expect("opens without anybody's help");
        let mut found = None;
        for state in &self.0 {
            if state.is_seen_in(&store)? {
                found = Some(state.clone());
            }
        }
        let mut found = found.expect("a state the store had since it was last synced");
        found.check(&store)?;
        found.run(&store, next)?;
        found.check(&store)?;
        Ok(self.0.len())
    }
}

/// Loses power at `moment` of the history, 0 to 1.
fn lose_power(history: &[Transaction], next: &Transaction, moment: f64, seed: u64) -> usize {
    let whole = Disk::default();
    run(&whole, history);
    let call = 1 + (moment * whole.calls() as f64) as u64;
    let disk = Disk::with_fault(Fault::From { call });
    let outcome = run(&disk, history);
    outcome.check(&disk.after_power_loss(seed), next).unwrap()
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn loses_nothing_acknowledged(
        history in prop::collection::vec(model::transaction(10), 1..8),
        next in model::transaction(10),
        moment in 0.0..1.0f64,
        seed in any::<u64>(),
    ) {
        let possible = lose_power(&history, &next, moment, seed);
        prop_assert!(possible <= 2, "the last commit, or the one under way");
    }

    #[test]
    fn what_is_left_of_what_was_not_synced_is_its_beginning(
        history in prop::collection::vec(model::unsynced_transaction(10), 1..12),
        next in model::unsynced_transaction(10),
        moment in 0.0..1.0f64,
        seed in any::<u64>(),
    ) {
        lose_power(&history, &next, moment, seed);
    }
}

/// A process that is killed leaves the file as redb wrote it: commits that were not synced lie in its memory.
#[test]
fn what_was_not_synced_is_lost_with_the_process() {
    let disk = Disk::default();
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    let put = |key: &[u8]| {
        let mut writer = store.write().unwrap();
        writer.put(key, &[], None).unwrap();
        writer
    };
    put(b"durable").commit().unwrap();
    put(b"not").commit_unsynced().unwrap();
    assert!(store.read().unwrap().get(b"not").unwrap().is_some(), "readers see it");
    assert_eq!((store.is_synced(), store.synced_seq()), (false, 1));
    let killed = || Store::open_with_backend(Disk::with_bytes(disk.bytes()), OPTIONS).unwrap();
    assert_eq!(killed().read().unwrap().last_seq().unwrap(), 1);
    let before = disk.syncs();
    store.sync().unwrap();
    assert_eq!((store.is_synced(), store.synced_seq(), disk.syncs() - before), (true, 2, 2));
    store.sync().unwrap();
    assert_eq!(disk.syncs() - before, 2, "there is nothing to sync");
    assert!(killed().read().unwrap().get(b"not").unwrap().is_some());
    let mut writer = put(b"with a name");
    writer.set_name("name", &store::NameTarget::Alias("other".to_owned())).unwrap();
    writer.commit_unsynced().unwrap();
    assert!(store.is_synced(), "names are durable at once");
    put(b"closed").commit_unsynced().unwrap();
    drop(store);
    assert_eq!(killed().read().unwrap().last_seq().unwrap(), 4, "closing makes it durable");
}

/// Creating a store is not one write: it must be possible to lose power at any of them.
#[test]
fn creation_can_be_cut_off_anywhere() {
    let whole = Disk::default();
    drop(Store::open_with_backend(whole.clone(), OPTIONS).unwrap());
    for call in 1..=whole.calls() {
        for seed in 0..8 {
            let disk = Disk::with_fault(Fault::From { call });
            drop(Store::open_with_backend(disk.clone(), OPTIONS));
            let store = Store::open_with_backend(disk.after_power_loss(seed), OPTIONS)
                .unwrap_or_else(|error| panic!("call {call}, seed {seed}: {error}"));
            Model::default().check(&store).unwrap();
        }
    }
}
