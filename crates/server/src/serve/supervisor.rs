//! Supervision of the tasks that run as long as the server: one that panics is started again, and if that does not
//! help, the server stops.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often a task may panic.
#[derive(Clone, Copy, Debug)]
struct PanicLimits {
    /// A task that panics more often within `period` is given up.
    panics_max: usize,
    period: Duration,
    /// Pause before a task is started again.
    pause: Duration,
}

const PANIC_LIMITS: PanicLimits =
    PanicLimits { panics_max: 5, period: Duration::from_secs(60), pause: Duration::from_millis(100) };

/// Supervises tasks. Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct Supervisor {
    stop: CancellationToken,
    failed: Arc<OnceLock<&'static str>>,
    limits: PanicLimits,
}

impl Supervisor {
    /// Cancels `stop` when a task is given up.
    pub(super) fn new(stop: CancellationToken) -> Supervisor {
        Supervisor { stop, failed: Arc::default(), limits: PANIC_LIMITS }
    }

    /// The token that stops the server.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Spawns [`Supervisor::run`] on the current runtime.
    pub(super) fn spawn<F>(&self, name: &'static str, start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let supervisor = self.clone();
        tokio::spawn(async move { supervisor.run(name, start).await });
    }

    /// Runs the task that `start` returns, and again after each panic, until it ends by itself or is given up.
    pub(super) async fn run<F>(&self, name: &'static str, mut start: impl FnMut() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let PanicLimits { panics_max, period, pause } = self.limits;
        let mut panics = Vec::new();
        // Dropping a set aborts its task.
        let mut task = JoinSet::new();
        loop {
            task.spawn(start());
            match task.join_next().await {
                Some(Err(error)) if error.is_panic() => {}
                _ => return,
            }
            let now = Instant::now();
            panics.retain(|panic| now.duration_since(*panic) < period);
            panics.push(now);
            if panics.len() > panics_max {
                return self.give_up(name);
            }
            tracing::error!("the task {name} panicked; it is started again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Records that the task cannot continue and stops the server.
    pub(super) fn give_up(&self, name: &'static str) {
        // The first is the cause.
        let _ = self.failed.set(name);
        self.stop.cancel();
        tracing::error!("the task {name} keeps panicking; the server stops");
    }

    /// The task that was given up, if any.
    pub(super) fn failed(&self) -> Option<&'static str> {
        self.failed.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// A supervisor, and the number of starts of its task, which panics at each but the last of them.
    async fn supervise(limits: PanicLimits, last: usize) -> (Supervisor, usize) {
        let supervisor = Supervisor { limits, ..Supervisor::new(CancellationToken::new()) };
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = starts.clone();
        let start = move || {
            let start = counted.fetch_add(1, Relaxed) + 1;
            async move { assert!(start == last, "on purpose") }
        };
        supervisor.run("test", start).await;
        (supervisor, starts.load(Relaxed))
    }

    #[tokio::test]
    async fn a_task_that_panics_is_started_again() {
        // The period is over before the next panic.
        let limits =
            PanicLimits { panics_max: 1, period: Duration::from_nanos(1), pause: Duration::from_millis(1) };
        let (supervisor, starts) = supervise(limits, 20).await;
        assert_eq!((starts, supervisor.failed(), supervisor.stop().is_cancelled()), (20, None, false));
    }

    #[tokio::test]
    async fn a_task_that_keeps_panicking_stops_the_server() {
        let limits =
            PanicLimits { panics_max: 3, period: Duration::from_secs(600), pause: Duration::from_millis(1) };
        let (supervisor, starts) = supervise(limits, 20).await;
        assert_eq!((starts, supervisor.failed(), supervisor.stop().is_cancelled()), (4, Some("test"), true));
    }
}
