//! Operations that are interrupted by a clock being set back while they read the time.

use std::thread::{self, ThreadId};

use super::*;

const BEFORE_MS: u64 = 1_000;
const AFTER_MS: u64 = 900;
/// Between the two.
const EXPIRES_MS: u64 = 950;

/// A clock that runs something during one of the reads of a thread.
#[derive(Default)]
struct InterruptedClock {
    ms: AtomicU64,
    interruption: Mutex<Option<Interruption>>,
}

struct Interruption {
    thread: ThreadId,
    /// Reads of the thread before the one that is interrupted.
    reads_before: u32,
    run: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for InterruptedClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ms.fmt(f)
    }
}

impl Clock for InterruptedClock {
    fn now_ms(&self) -> u64 {
        let read = self.ms.load(Ordering::SeqCst);
        let due = self.interruption.lock().take_if(|interruption| {
            let is_here = interruption.thread == thread::current().id();
            let is_due = is_here && interruption.reads_before == 0;
            interruption.reads_before = interruption.reads_before.saturating_sub(u32::from(is_here));
            is_due
        });
        if let Some(interruption) = due {
            (interruption.run)();
        }
        read
    }
}

/// The clock is set back during `operation`; when time has followed it, a document is written that expires before the
/// time that `operation` has read. It is not lost.
fn check(operation: impl Fn(&Engine)) {
    // Later reads of the time are made under locks, which the interruption takes too.
    for reads_before in [0, 1] {
        check_interrupted_after(reads_before, &operation);
    }
}

fn check_interrupted_after(reads_before: u32, operation: impl Fn(&Engine)) {
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
    let thread = thread::current().id();
    *clock.interruption.lock() = Some(Interruption { thread, reads_before, run: Box::new(run) });
    operation(&engine);
    assert!(clock.interruption.lock().is_none(), "the operation reads the time");
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
