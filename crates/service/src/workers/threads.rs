//! What the operating system is told of a thread. Neither is needed for anything but speed, so a
//! system that refuses is only noted.

/// How far threads that give way stand behind others: a tenth of a core where searches want it all,
/// and behind them in line whenever one wakes up.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Lets other threads go before the calling one. On Linux a priority is a thread's; elsewhere it
/// is the process's, and is left alone.
pub(crate) fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "threads in the background keep the priority of searches");
    }
}

/// Keeps the calling thread on the core of this number among those the process may use.
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
            tracing::warn!(%error, number, "a worker cannot be kept on a core of its own");
        }
    }
    #[cfg(not(target_os = "linux"))]
    tracing::debug!(number, "workers are kept on cores of their own on Linux only");
}
