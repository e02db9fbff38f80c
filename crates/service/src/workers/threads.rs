//! Priority and CPU affinity of threads. Both affect only performance, so failures are logged and
//! otherwise ignored.

/// Nice value of background threads. They get about a tenth of a core that searches fully load, and
/// a search thread that wakes up preempts them.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Lowers the priority of the calling thread. Only on Linux: elsewhere priorities apply to the whole
/// process.
pub(crate) fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "cannot lower the priority of a background thread");
    }
}

/// Pins the calling thread to the `number`th core of those available to the process.
pub(super) fn pin(number: usize) {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let pinned = sched_getaffinity(None).and_then(|allowed| {
            let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
            let Some(core) = cores.nth(number) else { return Ok(()) };
            let mut only = CpuSet::new();
            only.set(core);
            sched_setaffinity(None, &only)
        });
        if let Err(error) = pinned {
            tracing::warn!(%error, number, "cannot pin a worker to a core");
        }
    }
    #[cfg(not(target_os = "linux"))]
    tracing::debug!(number, "pinning workers to cores is supported on Linux only");
}
