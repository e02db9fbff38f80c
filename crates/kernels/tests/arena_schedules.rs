//! The arena under a model checker that tries random schedules.

mod model_checker;

use std::sync::Arc;

use kernels::arena::Rows;
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::thread;

/// Schedules per scenario and strategy.
const SCHEDULES: usize = 3_000;

#[test]
fn a_row_in_use_by_a_reader_is_never_written() {
    model_checker::check(SCHEDULES, || {
        let rows = Arc::new(Rows::new(&[3, 5]));
        let newest = Arc::new(AtomicU32::new(rows.claim(&[0; 8]).publish()));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (rows, newest) = (Arc::clone(&rows), Arc::clone(&newest));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let guard = rows.pin();
                        if let Some(row) = guard.row(newest.load(Ordering::Acquire)) {
                            let before = row.parts().collect::<Vec<_>>().concat();
                            thread::yield_now();
                            let now = row.parts().collect::<Vec<_>>().concat();
                            assert_eq!(now, before, "the row changed under its reader");
                            assert!(now.iter().all(|&byte| byte == now[0]), "the row is half written");
                        }
                    }
                })
            })
            .collect();
        for value in 1..5u8 {
            let old = newest.load(Ordering::Acquire);
            newest.store(rows.claim(&[value; 8]).publish(), Ordering::Release);
            rows.retire(&[old]);
            rows.reclaim();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        rows.reclaim();
        assert!(rows.end() <= 5);
    });
}

#[test]
fn a_pin_sees_every_change_up_to_its_epoch_and_bounds_oldest() {
    model_checker::check(SCHEDULES, || {
        let rows = Arc::new(Rows::new(&[1]));
        let changed = Arc::new(AtomicU32::new(0));
        let start = rows.pin().epoch();
        let writer = {
            let (rows, changed) = (Arc::clone(&rows), Arc::clone(&changed));
            thread::spawn(move || {
                for _ in 0..3 {
                    rows.epochs().advance(|_| {
                        changed.fetch_add(1, Ordering::Relaxed);
                    });
                }
            })
        };
        let observer = {
            let rows = Arc::clone(&rows);
            thread::spawn(move || rows.epochs().oldest())
        };
        let guard = rows.pin();
        assert!(u64::from(changed.load(Ordering::Relaxed)) >= guard.epoch() - start);
        assert!(rows.epochs().oldest() <= guard.epoch());
        observer.join().unwrap();
        writer.join().unwrap();
        assert!(rows.epochs().oldest() <= guard.epoch());
    });
}
