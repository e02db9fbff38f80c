//! State shared by the methods and threads of an engine.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use index::Cpu;
use parking_lot::{Mutex, RwLock};
use store::Store;

use crate::{
    clock::EngineClock, durability::Durability, queue::WriteQueue, registry::Registry, snapshot::Snapshots,
    wake_signal::WakeSignal,
};

/// The shared state of an engine.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) time: EngineClock,
    pub(crate) cpu: Cpu,
    pub(crate) data_dir: PathBuf,
    pub(crate) disk_reserve_bytes: u64,
    pub(crate) memory_max_bytes: u64,
    pub(crate) tail_max: usize,
    pub(crate) durability: Durability,
    pub(crate) on_read_only: fn(&str),
    pub(crate) queue: WriteQueue,
    /// Held from the start of a transaction until its changes are published, and while the registry is replaced, so
    /// that the two agree.
    pub(crate) commit_lock: Mutex<()>,
    /// Held during a whole DDL operation: they run one at a time. Acquired before `commit_lock`.
    pub(crate) ddl_lock: Mutex<()>,
    registry: RwLock<Arc<Registry>>,
    /// Why the engine is read-only, if it is.
    pub(crate) read_only_reason: OnceLock<String>,
    pub(crate) commits: AtomicU64,
    closing: AtomicBool,
    /// Notified when vectors enter a tail or are removed from an index.
    pub(crate) indexing_wake: WakeSignal,
    /// Notified when the engine closes.
    pub(crate) maintenance_wake: WakeSignal,
    warnings: Mutex<Vec<String>>,
}

/// Maximum number of warnings kept. The oldest are dropped first.
const WARNINGS_MAX: usize = 100;

/// Pause before a thread that panicked continues.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

impl Core {
    pub(crate) fn new(store: Store, snapshots: Snapshots, options: &crate::Options) -> Core {
        Core {
            store,
            snapshots,
            time: EngineClock::new(options.clock.clone()),
            cpu: options.cpu,
            data_dir: options.data_dir.clone(),
            disk_reserve_bytes: options.disk_reserve_bytes,
            memory_max_bytes: options.memory_max_bytes,
            tail_max: options.tail_max,
            durability: options.durability,
            on_read_only: options.on_read_only,
            queue: WriteQueue::default(),
            commit_lock: Mutex::new(()),
            ddl_lock: Mutex::new(()),
            registry: RwLock::default(),
            read_only_reason: OnceLock::new(),
            commits: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            indexing_wake: WakeSignal::default(),
            maintenance_wake: WakeSignal::default(),
            warnings: Mutex::default(),
        }
    }

    /// The current collections.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.read().clone()
    }

    /// Replaces the registry with a changed copy. The caller holds `commit_lock` if the next write must see the
    /// change.
    pub(crate) fn change_registry(&self, change: impl FnOnce(&mut Registry)) {
        let mut current = self.registry.write();
        let mut next = Registry::clone(&current);
        change(&mut next);
        *current = Arc::new(next);
    }

    /// Tells the background threads to stop and wakes them.
    pub(crate) fn stop(&self) {
        self.closing.store(true, Ordering::Release);
        self.indexing_wake.notify();
        self.maintenance_wake.notify();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Runs the work of a thread, and again after each panic, until it ends by itself or the engine closes: without one
    /// of its threads, the engine would look healthy and stop indexing, or answering writers.
    pub(crate) fn supervise(&self, run: &dyn Fn(&Core)) {
        loop {
            let seen = self.maintenance_wake.generation();
            if catch_unwind(AssertUnwindSafe(|| run(self))).is_ok() {
                return;
            }
            let thread = std::thread::current();
            self.warn(format!("the thread {} panicked and was started again", thread.name().unwrap_or("?")));
            if self.is_closing() {
                return;
            }
            // A panic that repeats must not occupy a core.
            self.maintenance_wake.wait_for(seen, RESTART_PAUSE);
        }
    }

    /// Records a warning for [`crate::Engine::warnings`].
    pub(crate) fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock();
        // A failure that repeats every second is recorded once.
        if warnings.last() == Some(&warning) {
            return;
        }
        if warnings.len() == WARNINGS_MAX {
            warnings.remove(0);
        }
        warnings.push(warning);
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}
