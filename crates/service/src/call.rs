//! A call in progress: its deadline, and whether its caller still waits.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Context, Error, ErrorKind,
    models::QueryJob,
    pool::Pool,
    sync::Arc,
    workers::{self, JobContext, Step},
};

/// The workers of a service: what they can batch is query texts.
pub(crate) type Workers = workers::WorkerPools<QueryJob>;

/// One call of a method of the service. Dropping it (after its response, or because its caller has gone) cancels the jobs
/// that it still has in the queues.
pub(crate) struct Call {
    started: Instant,
    deadline: Instant,
    cancel: CancellationToken,
    _cancel_when_dropped: DropGuard,
    workers: Arc<Workers>,
}

impl Call {
    /// Begins a call; `Err` if its deadline has passed or its caller has gone.
    pub(crate) fn begin(cx: &Context, timeout: Duration, workers: &Arc<Workers>) -> Result<Call, Error> {
        let started = Instant::now();
        let deadline = cx.deadline.unwrap_or_else(|| deadline_after(started, timeout));
        let cancel = cx.cancel.child_token();
        let call = Call {
            started,
            deadline,
            _cancel_when_dropped: cancel.clone().drop_guard(),
            cancel,
            workers: workers.clone(),
        };
        match call.ended() {
            Some(error) => Err(error),
            None => Ok(call),
        }
    }

    /// The context of jobs that are queued for this call.
    pub(crate) fn job_context(&self) -> JobContext {
        JobContext { deadline: self.deadline, cancel: self.cancel.clone() }
    }

    /// Time since the call began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time from the beginning of the call to `end`.
    pub(crate) fn elapsed_until(&self, end: Instant) -> Duration {
        end.saturating_duration_since(self.started)
    }

    /// When the caller stops waiting.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Runs a read on the search pool, and waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run_on(Pool::Search, work).await
    }

    /// Runs a change or description of collections on the admin pool, and waits for it.
    pub(crate) async fn administer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run_on(Pool::Admin, work).await
    }

    async fn run_on<T: Send + 'static>(
        &self,
        pool: Pool,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let pending = self.workers.push(pool, self.job_context(), move |_waited| work())?;
        self.wait(pending).await
    }

    /// Queues steps that report their results themselves.
    pub(crate) fn push_steps(&self, pool: Pool, steps: Vec<Step<QueryJob>>) -> Result<(), Error> {
        self.workers.push_steps(pool, self.job_context(), steps)
    }

    /// Waits for a result, but not past the deadline, nor for a caller who has gone.
    pub(crate) async fn wait<T>(&self, result: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        match self.within(result).await? {
            Ok(result) => result,
            // A job is dropped without a result when its call has ended, or when it panicked.
            Err(_) => Err(self.ended().unwrap_or_else(panicked)),
        }
    }

    /// Waits for a future, but not past the deadline, nor for a caller who has gone.
    pub(crate) async fn within<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = future => Ok(done),
            () = self.cancel.cancelled() => Err(cancelled()),
            () = tokio::time::sleep_until(self.deadline.into()) => Err(deadline_exceeded()),
        }
    }

    fn ended(&self) -> Option<Error> {
        if self.cancel.is_cancelled() {
            Some(cancelled())
        } else if Instant::now() >= self.deadline {
            Some(deadline_exceeded())
        } else {
            None
        }
    }
}

/// `timeout` after `start`, at most a year: the clock may not be able to count further.
fn deadline_after(start: Instant, timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    start + timeout.min(YEAR)
}

fn cancelled() -> Error {
    Error::unavailable(
        "cancelled",
        "the caller cancelled the call; a write that it started may still be committed",
    )
}

fn deadline_exceeded() -> Error {
    Error::unavailable(
        "deadline",
        "the deadline passed before the response was ready; a write that the call started may still be committed",
    )
}

pub(crate) fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "internal", "internal error: the server's log has the details")
}
