//! Power fails at a random moment, and of what was not synced a random part is lost, torn at 512 bytes.

use proptest::prelude::*;
use store::{Store, StoreError};

use crate::disks::{Disk, Fault};
use crate::model::{self, Model, Transaction};
use crate::{OPTIONS, config};

/// What must be there after the disk stopped: the last acknowledged commit, or the one under way.
struct Outcome {
    acknowledged: Model,
    in_flight: Option<Model>,
}

fn run(disk: &Disk, history: &[Transaction]) -> Outcome {
    let mut outcome = Outcome { acknowledged: Model::default(), in_flight: None };
    let Ok(store) = Store::open_on(disk.clone(), OPTIONS) else { return outcome };
    for transaction in history {
        let mut after = outcome.acknowledged.clone();
        let Ok(writer) = after.prepare(&store, transaction) else { break };
        if transaction.commit {
            if writer.commit().is_err() {
                outcome.in_flight = Some(after);
                break;
            }
            outcome.acknowledged = after;
        }
    }
    outcome
}

impl Outcome {
    /// Opens what is left, finds one of the two states in it, and goes on from there.
    fn check(self, disk: &Disk, next: &Transaction) -> Result<(), StoreError> {
        let store = Store::open_on(disk.clone(), OPTIONS).expect("opens without anybody's help");
        let mut found = match self.in_flight {
            Some(in_flight) if in_flight.is_seen_in(&store)? => in_flight,
            _ => self.acknowledged,
        };
        found.check(&store)?;
        found.run(&store, next)?;
        found.check(&store)
    }
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
        let whole = Disk::default();
        run(&whole, &history);
        let call = 1 + (moment * whole.calls() as f64) as u64;
        let disk = Disk::with_fault(Fault::From { call });
        let outcome = run(&disk, &history);
        outcome.check(&disk.after_power_loss(seed), &next).unwrap();
    }
}

/// Creating a store is not one write: it must be possible to lose power at any of them.
#[test]
fn creation_can_be_cut_off_anywhere() {
    let whole = Disk::default();
    drop(Store::open_on(whole.clone(), OPTIONS).unwrap());
    for call in 1..=whole.calls() {
        for seed in 0..8 {
            let disk = Disk::with_fault(Fault::From { call });
            drop(Store::open_on(disk.clone(), OPTIONS));
            let store = Store::open_on(disk.after_power_loss(seed), OPTIONS)
                .unwrap_or_else(|error| panic!("call {call}, seed {seed}: {error}"));
            Model::default().check(&store).unwrap();
        }
    }
}
