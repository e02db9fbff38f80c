//! Operations that are interrupted by a clock being set back, right after they read the time.

use std::thread::{self, ThreadId};

use super::*;

const BEFORE_MS: u64 = 1_000;
const AFTER_MS: u64 = 900;
/// Between the two.
const EXPIRES_MS: u64 = 950;

/// A clock that is set back while a thread reads it, and does something else before that read returns.
#[derive(Default)]
struct InterruptedClock {
    ms: AtomicU64,
    interruption: Mutex<Option<(ThreadId, Box<dyn FnOnce() + Send>)>>,
}

impl std::fmt::Debug for InterruptedClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ms.fmt(f)
    }
}

impl Clock for InterruptedClock {
    fn now_ms(&self) -> u64 {
        let read = self.ms.load(Ordering::SeqCst);
        let interruption = {
            let mut interruption = self.interruption.lock();
            let is_here = interruption.as_ref().is_some_and(|(thread, _)| *thread == thread::current().id());
            if is_here { interruption.take() } else { None }
        };
        if let Some((_, run)) = interruption {
            run();
        }
        read
    }
}

/// The clock is set back during `operation`; when time has followed it, a document is written that expires before the
/// time that `operation` has read. It is not lost.
fn check(operation: impl Fn(&Engine)) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(InterruptedClock { ms: BEFORE_MS.into(), ..InterruptedClock::default() });
    let options = Options { clock: clock.clone(), ..options(&dir) };
    let engine = Arc::new(open_with_options(Disk::default(), Arc::new(directory(&dir)), options));
    engine.create_collection("docs", schema()).unwrap();
    assert_eq!(engine.now_ms(), BEFORE_MS);
    let (interrupted, set_back) = (engine.clone(), clock.clone());
    let run = move || {
        set_back.ms.store(AFTER_MS, Ordering::SeqCst);
        interrupted.purge_expired().unwrap();
        assert_eq!(interrupted.now_ms(), AFTER_MS);
        let Op::Put { key, fields, vectors, expected, .. } = put(1) else { unreachable!() };
        let expiring = Op::Put { key, fields, vectors, expected, expires_at_ms: Some(EXPIRES_MS) };
        interrupted.write(vec![expiring]).remove(0).unwrap();
    };
    *clock.interruption.lock() = Some((thread::current().id(), Box::new(run)));
    // So that the read of the clock that is interrupted is compared with an earlier time.
    clock.ms.store(BEFORE_MS + 1, Ordering::SeqCst);
    operation(&engine);
    assert!(clock.interruption.lock().is_none(), "the operation read the time");
    assert!(engine.get(b"doc:1").unwrap().is_some());
    assert_eq!(engine.search(&query(&[1.0], true)).unwrap().hits.len(), 1);
}

#[test]
fn a_purge_does_not_delete_documents_written_after_the_clock_was_set_back() {
    check(|engine| assert_eq!(engine.purge_expired().unwrap(), 0));
}

#[test]
fn a_search_does_not_hide_documents_written_after_the_clock_was_set_back() {
    check(|engine| assert!(engine.search(&query(&[1.0], true)).unwrap().hits.len() <= 1));
}
