//! Every single call to the disk fails once: nothing panics, nothing is acknowledged that is not
//! there, and nothing more is until the store is opened again.

use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use store::{DocId, Field, Options, Store, StoreError};

use crate::disks::{Disk, Fault};
use crate::model::{self, Model, Transaction};
use crate::{OPTIONS, config};

fn history(len: usize, transaction: impl Strategy<Value = Transaction>) -> Vec<Transaction> {
    let mut runner = TestRunner::new(Config { ..config(1) });
    prop::collection::vec(transaction, len).new_tree(&mut runner).unwrap().current()
}

/// What a store was told and has told.
#[derive(Default)]
struct Run {
    /// The states since it was last synced that were acknowledged, the one then first.
    acknowledged: Vec<Model>,
    /// The one it failed to commit.
    in_flight: Option<Model>,
    /// What it said of that.
    told: Option<StoreError>,
}

impl Run {
    fn new() -> Run {
        Run { acknowledged: vec![Model::default()], ..Run::default() }
    }

    /// Runs the history until something fails; says whether all of it went through.
    fn of(store: &Store, history: &[Transaction]) -> (Run, bool) {
        let mut run = Run::new();
        for transaction in history {
            let mut after = run.last().clone();
            let Ok(writer) = after.prepare(store, transaction) else { return (run, false) };
            if transaction.commit {
                if let Err(error) = transaction.commit(writer) {
                    run.in_flight = Some(after);
                    run.told = Some(error);
                    return (run, false);
                }
                if store.is_synced() {
                    run.acknowledged.clear();
                }
                run.acknowledged.push(after);
            }
        }
        (run, true)
    }

    fn last(&self) -> &Model {
        self.acknowledged.last().unwrap()
    }

    /// Whatever is left is one of the states it may be.
    fn check(&self, left: Disk, call: u64) {
        let store =
            Store::open_with_backend(left, OPTIONS).unwrap_or_else(|error| panic!("call {call}: {error}"));
        let possible = self.acknowledged.iter().chain(&self.in_flight);
        let found = possible.filter(|state| state.is_seen_in(&store).unwrap()).last();
        found.unwrap_or(&self.acknowledged[0]).check(&store).unwrap();
    }
}

/// Lets every call fail; how often that was noticed, and how often writes went on.
fn fail_every_call(history: &[Transaction]) -> (u64, u64) {
    let whole = Disk::default();
    let store = Store::open_with_backend(whole.clone(), OPTIONS).unwrap();
    assert!(Run::of(&store, history).1);
    let calls = whole.calls();
    assert!(calls > 100, "a history of {calls} calls hardly tests anything");
    let (mut failures, mut recovered) = (0, 0);
    for call in 1..=calls {
        let disk = Disk::with_fault(Fault::Once { call });
        let mut run = Run::new();
        if let Ok(store) = Store::open_with_backend(disk.clone(), OPTIONS) {
            let through;
            (run, through) = Run::of(&store, history);
            failures += u64::from(!through);
            // The disk works again, the store must not: it cannot know what is on it, unless there only was no room.
            for _ in 0..if through { 0 } else { 2 } {
                match store.write() {
                    Err(error) => {
                        assert!(matches!(error, StoreError::ReadOnly { .. }), "call {call}: {error}");
                        let told = error.to_string().contains("may be lost");
                        assert_eq!(told, run.acknowledged.len() > 1, "call {call}: {error}");
                        // Whoever is told of room waits for it, which must not be in vain; save where what was
                        // refused was made all the same, which only the one after can know.
                        let in_vain = run.told.as_ref().is_some_and(StoreError::is_full);
                        let was_made = error.to_string().contains("was made all the same");
                        assert!(!in_vain || was_made, "call {call}: {error}, after {:?}", run.told);
                    }
                    Ok(writer) => {
                        drop(writer);
                        let had_no_room = Fault::kind(call) == ErrorKind::StorageFull;
                        assert!(
                            had_no_room && disk.syncs_failed() == 0,
                            "call {call}: a write after a failed one"
                        );
                        recovered += 1;
                        // Above all, nothing that was acknowledged is taken back.
                        run.last().check(&store).unwrap();
                    }
                }
            }
        }
        run.check(Disk::with_bytes(disk.bytes()), call);
        run.check(disk.after_power_loss(call), call);
    }
    (failures, recovered)
}

#[test]
fn any_call_may_fail_once() {
    let (failures, recovered) = fail_every_call(&history(6, model::transaction(10)));
    assert!(recovered > 10, "only {recovered} writes went on after there was room again");
    assert!(failures > 20, "only {failures} failing calls were noticed");
}

#[test]
fn any_call_may_fail_once_while_commits_are_not_synced() {
    let (failures, recovered) = fail_every_call(&history(16, model::unsynced_transaction(10)));
    assert!(recovered > 0, "no write went on after there was room again, though all was synced");
    assert!(failures > 20, "only {failures} failing calls were noticed");
}

#[test]
fn a_commit_of_one_document_syncs_twice() {
    let disk = Disk::default();
    let store = Store::open_with_backend(disk.clone(), OPTIONS).unwrap();
    for round in 0..5u8 {
        let before = disk.syncs();
        let mut writer = store.write().unwrap();
        let field = Field { name: b"n"[..].into(), value: vec![round].into() };
        writer.put(b"key", &[field], Some(u64::from(round))).unwrap();
        assert_eq!(disk.syncs(), before, "nothing is synced before the commit");
        writer.commit().unwrap();
        assert_eq!(disk.syncs() - before, 2);
    }
}

/// Everybody waits while a store is opened again: that must not take the time of reading all of it.
#[test]
fn a_store_that_found_no_room_is_not_read_as_a_whole_again() {
    const DOCUMENTS: u64 = 400;
    let disk = Disk::default();
    let put = |store: &Store, number: u64| -> Result<(), StoreError> {
        let mut writer = store.write()?;
        let value = vec![7; 8 << 10].into();
        writer.put(&number.to_be_bytes(), &[Field { name: b"n"[..].into(), value }], None)?;
        writer.commit()
    };
    let options = Options { verify_bytes_max: u64::MAX, ..OPTIONS };
    let store = Store::open_with_backend(disk.clone(), options).unwrap();
    (0..DOCUMENTS).for_each(|number| put(&store, number).unwrap());
    let reader = store.read().unwrap();
    // The kind of failure goes by the number of the call: this one finds no room.
    let call = (disk.calls() + 1..).find(|call| Fault::kind(*call) == ErrorKind::StorageFull).unwrap();
    disk.fail(Fault::Once { call });
    let error = put(&store, DOCUMENTS).unwrap_err();
    assert!(error.is_full(), "{error}");

    // redb reads every page once when it is built for debugging, and twice when it also verifies.
    let unverified = Disk::with_bytes(disk.bytes());
    drop(Store::open_with_backend(unverified.clone(), OPTIONS).unwrap());
    let before = disk.calls();
    drop(store.write().unwrap());
    let (calls, unverified) = (disk.calls() - before, unverified.calls());
    assert!(calls < unverified + DOCUMENTS / 4, "{calls} calls to the disk, {unverified} without verifying");
    let mut closed = 0;
    for number in 1..=DOCUMENTS {
        match reader.document(DocId(number)) {
            Ok(document) => assert!(document.is_some(), "{number}"),
            Err(StoreError::DiskFailedEarlier) => closed += 1,
            Err(other) => panic!("nothing is damaged: {other}"),
        }
    }
    assert!(closed > 0, "all of it was in the cache");
    assert_eq!(store.read().unwrap().document_count().unwrap(), DOCUMENTS);
}
