//! Each call to the disk fails once. Nothing panics, no acknowledged write is lost, and no further write is
//! acknowledged until the store is reopened.

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

/// The states of the model while a history ran.
#[derive(Default)]
struct Run {
    /// The acknowledged states since the last sync, starting with the synced one.
    acknowledged: Vec<Model>,
    /// The state whose commit failed.
    in_flight: Option<Model>,
    /// The error of that commit.
    error: Option<StoreError>,
}

impl Run {
    fn new() -> Run {
        Run { acknowledged: vec![Model::default()], ..Run::default() }
    }

    /// Runs the history until a step fails. Returns whether the whole history succeeded.
    fn execute(store: &Store, history: &[Transaction]) -> (Run, bool) {
        let mut run = Run::new();
        for transaction in history {
            let mut after = run.last().clone();
            let Ok(writer) = after.prepare(store, transaction) else { return (run, false) };
            if transaction.commit {
                if let Err(error) = transaction.commit(writer) {
                    run.in_flight = Some(after);
                    run.error = Some(error);
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

    /// Verifies that the disk contains one of the possible states.
    fn check(&self, remaining: Disk, call: u64) {
        let store = Store::open_with_backend(remaining, OPTIONS)
            .unwrap_or_else(|error| panic!("call {call}: {error}"));
        let possible = self.acknowledged.iter().chain(&self.in_flight);
        let found = possible.filter(|state| state.matches(&store).unwrap()).last();
        found.unwrap_or(&self.acknowledged[0]).check(&store).unwrap();
    }
}

/// Makes each call fail in turn. Returns how many failures were reported, and how often writes resumed.
fn fail_every_call(history: &[Transaction]) -> (u64, u64) {
    let fault_free = Disk::default();
    let store = Store::open_with_backend(fault_free.clone(), OPTIONS).unwrap();
    assert!(Run::execute(&store, history).1);
    let calls = fault_free.calls();
    assert!(calls > 100, "a history of {calls} calls is too short");
    let (mut failures, mut recovered) = (0, 0);
    for call in 1..=calls {
        let disk = Disk::with_fault(Fault::Once { call });
        let mut run = Run::new();
        if let Ok(store) = Store::open_with_backend(disk.clone(), OPTIONS) {
            let succeeded;
            (run, succeeded) = Run::execute(&store, history);
            failures += u64::from(!succeeded);
            // The disk works again, but the store must reject writes, because it does not know the content of
            // the disk. The exception is a disk that was only full.
            for _ in 0..if succeeded { 0 } else { 2 } {
                match store.write() {
                    Err(error) => {
                        assert!(matches!(error, StoreError::ReadOnly { .. }), "call {call}: {error}");
                        let says_lost = error.to_string().contains("may be lost");
                        assert_eq!(says_lost, run.acknowledged.len() > 1, "call {call}: {error}");
                        // If the failed commit reported a full disk, writes must resume. The exception is a failed
                        // commit that took effect nevertheless, which only a later call can detect.
                        let reported_full = run.error.as_ref().is_some_and(StoreError::is_full);
                        let was_committed = error.to_string().contains("was committed nevertheless");
                        assert!(
                            !reported_full || was_committed,
                            "call {call}: {error}, after {:?}",
                            run.error
                        );
                    }
                    Ok(writer) => {
                        drop(writer);
                        let disk_was_full = Fault::kind(call) == ErrorKind::StorageFull;
                        assert!(
                            disk_was_full && disk.syncs_failed() == 0,
                            "call {call}: a write was accepted after a failed one"
                        );
                        recovered += 1;
                        // No acknowledged write is lost.
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
    assert!(recovered > 10, "writes resumed only {recovered} times after the disk was full");
    assert!(failures > 20, "only {failures} failures were reported");
}

#[test]
fn any_call_may_fail_once_while_commits_are_not_synced() {
    let (failures, recovered) = fail_every_call(&history(16, model::unsynced_transaction(10)));
    assert!(recovered > 0, "writes never resumed after the disk was full, although all commits were synced");
    assert!(failures > 20, "only {failures} failures were reported");
}

#[test]
fn a_commit_syncs_twice() {
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

/// All callers wait while a store is reopened, so reopening must not read the whole file.
#[test]
fn reopening_after_a_full_disk_does_not_verify_the_whole_file() {
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
    // The kind of failure depends on the number of the call. At this one the disk is full.
    let call = (disk.calls() + 1..).find(|call| Fault::kind(*call) == ErrorKind::StorageFull).unwrap();
    disk.fail(Fault::Once { call });
    let error = put(&store, DOCUMENTS).unwrap_err();
    assert!(error.is_full(), "{error}");

    // In debug builds redb reads every page once when it opens a file, and twice when it also verifies it.
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
            Err(other) => panic!("unexpected error: {other}"),
        }
    }
    assert!(closed > 0, "every read was served from the cache");
    assert_eq!(store.read().unwrap().document_count().unwrap(), DOCUMENTS);
}
