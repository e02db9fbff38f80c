//! Every single call to the disk fails once: nothing panics, nothing is acknowledged that is not
//! there, and nothing more is until the store is opened again.

use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use store::{Field, Store, StoreError};

use crate::disks::{Disk, Fault};
use crate::model::{self, Model, Transaction};
use crate::{OPTIONS, config};

fn history() -> Vec<Transaction> {
    let mut runner = TestRunner::new(Config { ..config(1) });
    prop::collection::vec(model::transaction(10), 6).new_tree(&mut runner).unwrap().current()
}

/// Runs the history until something fails; says whether all of it went through.
fn run(
    store: &Store,
    history: &[Transaction],
    acknowledged: &mut Model,
    in_flight: &mut Option<Model>,
) -> bool {
    for transaction in history {
        let mut after = acknowledged.clone();
        let Ok(writer) = after.prepare(store, transaction) else { return false };
        if transaction.commit {
            if writer.commit().is_err() {
                *in_flight = Some(after);
                return false;
            }
            *acknowledged = after;
        }
    }
    true
}

#[test]
fn any_call_may_fail_once() {
    let history = history();
    let whole = Disk::default();
    let store = Store::open_on(whole.clone(), OPTIONS).unwrap();
    assert!(run(&store, &history, &mut Model::default(), &mut None));
    let calls = whole.calls();
    assert!(calls > 100, "a history of {calls} calls hardly tests anything");
    let (mut failures, mut recovered) = (0, 0);
    for call in 1..=calls {
        let disk = Disk::with_fault(Fault::Once { call });
        let (mut acknowledged, mut in_flight) = (Model::default(), None);
        if let Ok(store) = Store::open_on(disk.clone(), OPTIONS)
            && !run(&store, &history, &mut acknowledged, &mut in_flight)
        {
            failures += 1;
            // The disk works again, the store must not: it cannot know what is on it, unless there only was no room.
            for _ in 0..2 {
                match store.write() {
                    Err(error) => {
                        assert!(matches!(error, StoreError::ReadOnly { .. }), "call {call}: {error}")
                    }
                    Ok(writer) => {
                        drop(writer);
                        let had_no_room = Fault::kind(call) == ErrorKind::StorageFull;
                        assert!(
                            had_no_room && disk.syncs_failed() == 0,
                            "call {call}: a write after a failed one"
                        );
                        recovered += 1;
                        acknowledged.check(&store).unwrap();
                    }
                }
            }
        }
        for left in [Disk::with_bytes(disk.bytes()), disk.after_power_loss(call)] {
            let store = Store::open_on(left, OPTIONS).unwrap_or_else(|error| panic!("call {call}: {error}"));
            let found = match &in_flight {
                Some(in_flight) if in_flight.is_seen_in(&store).unwrap() => in_flight,
                _ => &acknowledged,
            };
            found.check(&store).unwrap();
        }
    }
    assert!(recovered > 10, "only {recovered} writes went on after there was room again");
    assert!(failures > 20, "only {failures} of {calls} failing calls were noticed");
}

#[test]
fn a_commit_of_one_document_syncs_twice() {
    let disk = Disk::default();
    let store = Store::open_on(disk.clone(), OPTIONS).unwrap();
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
