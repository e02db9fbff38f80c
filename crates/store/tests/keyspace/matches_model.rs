//! Random transactions applied to a store and to a model made of maps: both must always agree.

use crate::disks::Disk;
use crate::model::{self, Model, Transaction};
use proptest::prelude::*;
use store::Store;

use crate::{OPTIONS, config};

/// Transactions, and for each whether the store is reopened after it.
fn history() -> impl Strategy<Value = Vec<(Transaction, bool)>> {
    prop::collection::vec((model::transaction(40), prop::bool::weighted(0.3)), 1..8)
}

fn compare(mut open: impl FnMut() -> Store, history: &[(Transaction, bool)]) {
    let mut store = open();
    let id = store.id();
    let mut model = Model::default();
    for (transaction, reopen) in history {
        model.run(&store, transaction).unwrap();
        if *reopen {
            drop(store);
            store = open();
            assert_eq!(store.id(), id);
        }
        model.check(&store).unwrap();
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn in_memory(history in history()) {
        let disk = Disk::default();
        compare(|| Store::open_with_backend(disk.clone(), OPTIONS).unwrap(), &history);
    }
}

proptest! {
    #![proptest_config(config(30))]

    #[test]
    fn in_a_file(history in history()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        compare(|| Store::open(&path, OPTIONS).unwrap(), &history);
    }
}
