//! The bounded queue between those who write and the committer.

use std::{collections::VecDeque, time::Duration};

use crate::{
    sync::{Condvar, Mutex},
    write::{Op, QueueFull, WriteError, WriteOutcome},
};

/// Operations of one commit.
pub(crate) const GROUP_OPS_MAX: usize = 512;
/// Bytes of one commit.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Operations that may wait.
const QUEUED_OPS_MAX: usize = 16 * GROUP_OPS_MAX;
/// Bytes that may wait.
const QUEUED_BYTES_MAX: usize = 8 * GROUP_BYTES_MAX;
/// How long the committer waits for as many writers as came together last time. A lone writer
/// is not waited for.
const GROUP_DELAY: Duration = Duration::from_millis(2);

/// Called with the results of a job.
pub(crate) type WriteCallback = Box<dyn FnOnce(Vec<Result<WriteOutcome, WriteError>>) + Send>;

/// Writes that came together and are answered together.
pub(crate) struct WriteJob {
    pub(crate) ops: Vec<Op>,
    pub(crate) done: WriteCallback,
    bytes: usize,
}

/// Why a job did not get in.
pub(crate) enum SubmitError {
    Full(QueueFull),
    /// The queue is closed: the job comes back, to be answered so.
    Closed(WriteJob),
}

/// Writes that wait for the committer.
#[derive(Default)]
pub(crate) struct WriteQueue {
    state: Mutex<QueueState>,
    /// Rung when writes come or the queue is closed.
    not_empty: Condvar,
    /// Rung when room was made or the queue is closed.
    not_full: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<WriteJob>,
    ops: usize,
    bytes: usize,
    closed: bool,
    /// Jobs of the last group.
    last_group: usize,
}

impl QueueState {
    fn has_capacity(&self, job: &WriteJob) -> bool {
        // What is larger than the whole queue gets in when it is alone.
        self.jobs.is_empty()
            || (self.ops + job.ops.len() <= QUEUED_OPS_MAX && self.bytes + job.bytes <= QUEUED_BYTES_MAX)
    }

    fn push(&mut self, job: WriteJob) {
        self.ops += job.ops.len();
        self.bytes += job.bytes;
        self.jobs.push_back(job);
    }

    /// Whether waiting longer could not make the next group larger.
    fn is_group_complete(&self) -> bool {
        self.jobs.len() >= self.last_group
            || self.ops >= GROUP_OPS_MAX
            || self.bytes >= GROUP_BYTES_MAX
            || self.closed
    }
}

impl WriteJob {
    pub(crate) fn new(ops: Vec<Op>, done: WriteCallback) -> WriteJob {
        let bytes = ops.iter().map(Op::bytes).sum();
        WriteJob { ops, done, bytes }
    }
}

impl WriteQueue {
    /// Lines a job up, or says at once why not.
    pub(crate) fn submit(&self, job: WriteJob) -> Result<(), SubmitError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(SubmitError::Closed(job));
        }
        if !state.has_capacity(&job) {
            return Err(SubmitError::Full(QueueFull));
        }
        state.push(job);
        self.not_empty.notify_one();
        Ok(())
    }

    /// Lines a job up when there is room; gives it back if the queue closes.
    pub(crate) fn submit_blocking(&self, job: WriteJob) -> Result<(), WriteJob> {
        let mut state = self.state.lock();
        while !state.closed && !state.has_capacity(&job) {
            self.not_full.wait(&mut state);
        }
        if state.closed {
            return Err(job);
        }
        state.push(job);
        self.not_empty.notify_one();
        Ok(())
    }

    /// The jobs to commit next, waiting for the first: as many as fit one commit, at least one, or none where none came
    /// in `timeout`. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, timeout: Option<Duration>) -> Option<Vec<WriteJob>> {
        let mut state = self.state.lock();
        let is_idle = |state: &mut QueueState| state.jobs.is_empty() && !state.closed;
        if let Some(timeout) = timeout {
            self.not_empty.wait_while_for(&mut state, is_idle, timeout);
        } else {
            self.not_empty.wait_while(&mut state, is_idle);
        }
        if state.jobs.is_empty() {
            return (!state.closed).then(Vec::new);
        }
        if !state.is_group_complete() {
            self.not_empty.wait_while_for(&mut state, |state| !state.is_group_complete(), GROUP_DELAY);
        }
        let mut jobs: Vec<WriteJob> = Vec::new();
        let (mut ops, mut bytes) = (0, 0);
        while let Some(job) = state.jobs.pop_front_if(|job| {
            let fits = ops + job.ops.len() <= GROUP_OPS_MAX && bytes + job.bytes <= GROUP_BYTES_MAX;
            fits || jobs.is_empty()
        }) {
            ops += job.ops.len();
            bytes += job.bytes;
            jobs.push(job);
        }
        state.ops -= ops;
        state.bytes -= bytes;
        state.last_group = jobs.len();
        self.not_full.notify_all();
        Some(jobs)
    }

    /// Takes no more jobs; those that wait are still committed.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }
}

impl std::fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting_ops", &self.state.lock().ops).finish_non_exhaustive()
    }
}
