//! The bounded queue between writers and the committer.

use std::{collections::VecDeque, time::Duration};

use crate::{
    sync::{Condvar, Mutex},
    write::{Op, QueueFull, WriteError, WriteOutcome},
};

/// Maximum number of operations per commit.
pub(crate) const GROUP_OPS_MAX: usize = 512;
/// Maximum number of bytes per commit.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Maximum number of operations in the queue.
const QUEUED_OPS_MAX: usize = 16 * GROUP_OPS_MAX;
/// Maximum number of bytes in the queue.
const QUEUED_BYTES_MAX: usize = 8 * GROUP_BYTES_MAX;
/// How long the committer waits for the writers of the last group to return with their next jobs. It does not wait if the
/// last group was a single job and no other writer was waiting.
const GROUP_DELAY: Duration = Duration::from_millis(2);
/// How often the committer waits that long for one group. It waits again only if jobs arrived meanwhile.
const GROUP_DELAYS_MAX: usize = 5;

/// Called with the results of a job.
pub(crate) type WriteCallback = Box<dyn FnOnce(Vec<Result<WriteOutcome, WriteError>>) + Send>;

/// Writes that were submitted together and are answered together.
pub(crate) struct WriteJob {
    pub(crate) ops: Vec<Op>,
    pub(crate) done: WriteCallback,
    bytes: usize,
}

/// Why a job was not queued.
pub(crate) enum SubmitError {
    Full(QueueFull),
    /// The queue is closed. Returns the job, so that the caller can answer it.
    Closed(WriteJob),
}

/// Jobs that wait for the committer.
#[derive(Default)]
pub(crate) struct WriteQueue {
    state: Mutex<QueueState>,
    /// Notified when a job arrives or the queue closes.
    not_empty: Condvar,
    /// Notified when jobs are taken or the queue closes.
    not_full: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<WriteJob>,
    ops: usize,
    bytes: usize,
    closed: bool,
    /// Number of jobs in the last group.
    last_group: usize,
}

impl QueueState {
    fn has_capacity(&self, job: &WriteJob) -> bool {
        // An empty queue accepts any job, so that one larger than the whole queue is not rejected forever.
        self.jobs.is_empty()
            || (self.ops + job.ops.len() <= QUEUED_OPS_MAX && self.bytes + job.bytes <= QUEUED_BYTES_MAX)
    }

    fn push(&mut self, job: WriteJob) {
        self.ops += job.ops.len();
        self.bytes += job.bytes;
        self.jobs.push_back(job);
    }

    /// Whether waiting longer for `expected` jobs would not enlarge the next group.
    fn is_group_complete(&self, expected: usize) -> bool {
        self.jobs.len() >= expected
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
    /// Queues a job, or fails at once.
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

    /// Queues a job once there is space. Returns the job if the queue closes.
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

    /// Waits for jobs and returns the next group: as many as fit into one commit, but at least one. The group is empty
    /// if no job arrived within `timeout`. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, timeout: Option<Duration>) -> Option<Vec<WriteJob>> {
        let mut state = self.state.lock();
        // These jobs were submitted while the last group was committed, so other writers wait for them.
        let expected = state.last_group + state.jobs.len();
        let is_idle = |state: &mut QueueState| state.jobs.is_empty() && !state.closed;
        if let Some(timeout) = timeout {
            self.not_empty.wait_while_for(&mut state, is_idle, timeout);
        } else {
            self.not_empty.wait_while(&mut state, is_idle);
        }
        if state.jobs.is_empty() {
            return (!state.closed).then(Vec::new);
        }
        for _ in 0..GROUP_DELAYS_MAX {
            let arrived = state.jobs.len();
            self.not_empty.wait_while_for(
                &mut state,
                |state| !state.is_group_complete(expected),
                GROUP_DELAY,
            );
            if state.jobs.len() == arrived {
                break;
            }
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

    /// Rejects new jobs. Queued jobs are still committed.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }
}

impl std::fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteQueue").field("queued_ops", &self.state.lock().ops).finish_non_exhaustive()
    }
}
