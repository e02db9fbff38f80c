//! The change log is no longer than the oldest snapshot requires.

use super::*;

/// How many changes are kept, and up to which they were trimmed.
fn log(engine: &Engine) -> (usize, u64) {
    let reader = engine.core.store.read().unwrap();
    (reader.changes(0).unwrap().count(), reader.changes_trimmed_to().unwrap())
}

fn put_all(engine: &Engine, numbers: std::ops::Range<u8>) {
    assert!(engine.write(numbers.map(put).collect()).iter().all(Result::is_ok));
}

#[test]
fn without_snapshots_no_changes_are_kept() {
    for has_collection in [false, true] {
        let (_dir, engine) = open_on(Disk::default());
        if has_collection {
            engine.create_collection("docs", schema()).unwrap();
        }
        put_all(&engine, 0..25);
        engine.core.trim_changes(26, 100).unwrap();
        assert_eq!(log(&engine), (25, 0), "fewer changes than the minimum are not trimmed");
        engine.core.trim_changes(25, 100).unwrap();
        assert_eq!(log(&engine), (0, 25));
        // Documents whose changes were trimmed can still be replaced.
        put_all(&engine, 10..20);
        assert_eq!(log(&engine), (10, 25));
    }
}

#[test]
fn changes_since_the_oldest_snapshot_are_kept() {
    let (_dir, engine) = open_on(Disk::default());
    engine.create_collection("docs", schema()).unwrap();
    put_all(&engine, 0..25);
    engine.core.save(|_| true);
    assert_eq!(log(&engine), (0, 25));
    put_all(&engine, 25..30);
    engine.core.trim_changes(1, 100).unwrap();
    assert_eq!(log(&engine), (5, 25));
}

#[test]
fn a_snapshot_of_an_empty_collection_is_used() {
    let (disk, dir) = (Disk::default(), tempfile::tempdir().unwrap());
    let engine = open_in(&dir, disk.clone());
    engine.create_collection("docs", schema()).unwrap();
    engine.core.save(|_| true);
    put_all(&engine, 0..5);
    engine.core.trim_changes(1, 100).unwrap();
    assert_eq!(log(&engine), (5, 0));
    let engine = open_in(&dir, disk.after_power_loss());
    assert_eq!(engine.warnings(), [] as [&str; 0]);
}

#[test]
fn a_long_change_log_is_trimmed_in_small_transactions() {
    let disk = Disk::default();
    let (_dir, engine) = open_on(disk.clone());
    put_all(&engine, 0..25);
    let syncs = || disk.0.syncs.load(Ordering::Relaxed);
    let before = syncs();
    engine.core.trim_changes(1, 10).unwrap();
    assert_eq!((log(&engine), syncs() - before), ((0, 25), 3 * 2), "two syncs each");
}
