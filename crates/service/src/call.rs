//! A call under way: how long it may take, and who still waits for it.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Context, Error,
    sync::Arc,
    workers::{Lane, Ticket, Workers},
};

/// One call of a verb. Dropped (answered, or its caller has gone), it cancels what is still
/// queued on its behalf.
pub(super) struct Call {
    started: Instant,
    deadline: Instant,
    cancel: CancellationToken,
    _cancel_when_dropped: DropGuard,
    workers: Arc<Workers>,
}

impl Call {
    /// Begins a call; `Err` if its time is over already or its caller has gone.
    pub(super) fn begin(cx: &Context, timeout: Duration, workers: &Arc<Workers>) -> Result<Call, Error> {
        let started = Instant::now();
        let deadline = cx.deadline.unwrap_or_else(|| far(started, timeout));
        let cancel = cx.cancel.child_token();
        let call = Call {
            started,
            deadline,
            _cancel_when_dropped: cancel.clone().drop_guard(),
            cancel,
            workers: workers.clone(),
        };
        match call.over() {
            Some(error) => Err(error),
            None => Ok(call),
        }
    }

    /// What a job queued for this call is admitted with.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket { deadline: self.deadline, cancel: self.cancel.clone() }
    }

    /// When the call began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Time since the call began.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// When its answer is worth nothing any more.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Has a worker read something at once, and waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run_on(Lane::Direct, work).await
    }

    /// Has a worker of the lane for it make, change or describe something, and waits for it.
    pub(super) async fn administer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run_on(Lane::Admin, work).await
    }

    async fn run_on<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let pending = self.workers.push(lane, self.ticket(), move |_waited| work())?;
        self.wait(pending).await
    }

    /// Waits for an answer, but not past the deadline, nor for a caller who has gone.
    pub(super) async fn wait<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        match self.within(answer).await? {
            Ok(result) => result,
            // A job is dropped unanswered when its call is over, or when it panicked.
            Err(_) => Err(self.over().unwrap_or_else(panicked)),
        }
    }

    /// Waits for anything, but not past the deadline, nor for a caller who has gone.
    pub(super) async fn within<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = future => Ok(done),
            () = self.cancel.cancelled() => Err(cancelled()),
            () = tokio::time::sleep_until(self.deadline.into()) => Err(late()),
        }
    }

    fn over(&self) -> Option<Error> {
        if self.cancel.is_cancelled() {
            Some(cancelled())
        } else if Instant::now() >= self.deadline {
            Some(late())
        } else {
            None
        }
    }
}

/// `timeout` from `start`; where the clock cannot count so far, as far as anybody will wait.
fn far(start: Instant, timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    start + timeout.min(YEAR)
}

fn cancelled() -> Error {
    Error::unavailable("cancelled", "the caller has gone; a write it had begun may still be made")
}

fn late() -> Error {
    Error::unavailable(
        "deadline",
        "the deadline passed before the answer was ready; a write it had begun may still be made",
    )
}

pub(super) fn panicked() -> Error {
    Error::new(
        super::ErrorKind::Internal,
        "internal",
        "the work for this call ended in a fault of the program; its log says where",
    )
}
