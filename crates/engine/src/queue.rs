//! The bounded queue between those who write and the committer.

use std::{collections::VecDeque, time::Duration};

use crate::{
    sync::{Condvar, Mutex},
    write::{Op, QueueFull, WriteError, Written},
};

/// Operations of one commit.
pub(crate) const GROUP_OPS_MAX: usize = 512;
/// Bytes of one commit.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Operations that may wait.
const WAITING_OPS_MAX: usize = 16 * GROUP_OPS_MAX;
/// Bytes that may wait.
const WAITING_BYTES_MAX: usize = 8 * GROUP_BYTES_MAX;
/// How long the committer waits for as many writers as came together last time. A lone writer
/// is not waited for.
const GATHER: Duration = Duration::from_millis(2);

/// Called with the results of a job.
pub(crate) type Done = Box<dyn FnOnce(Vec<Result<Written, WriteError>>) + Send>;

/// Writes that came together and are answered together.
pub(crate) struct Job {
    pub(crate) ops: Vec<Op>,
    pub(crate) done: Done,
    bytes: usize,
}

/// Why a job did not get in.
pub(crate) enum Refused {
    Full(QueueFull),
    /// The queue is closed: the job comes back, to be answered so.
    Closed(Job),
}

/// Writes that wait for the committer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Rung when writes come or the queue is closed.
    came: Condvar,
    /// Rung when room was made or the queue is closed.
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    ops: usize,
    bytes: usize,
    closed: bool,
    /// Jobs of the last group.
    last_group: usize,
}

impl Waiting {
    fn has_room(&self, job: &Job) -> bool {
        // What is larger than the whole queue gets in when it is alone.
        self.jobs.is_empty()
            || (self.ops + job.ops.len() <= WAITING_OPS_MAX && self.bytes + job.bytes <= WAITING_BYTES_MAX)
    }

    fn push(&mut self, job: Job) {
        self.ops += job.ops.len();
        self.bytes += job.bytes;
        self.jobs.push_back(job);
    }

    /// Whether waiting longer could not make the next group larger.
    fn is_group_whole(&self) -> bool {
        self.jobs.len() >= self.last_group
            || self.ops >= GROUP_OPS_MAX
            || self.bytes >= GROUP_BYTES_MAX
            || self.closed
    }
}

impl Job {
    pub(crate) fn new(ops: Vec<Op>, done: Done) -> Job {
        let bytes = ops.iter().map(Op::bytes).sum();
        Job { ops, done, bytes }
    }
}

impl Queue {
    /// Lines a job up, or says at once why not.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Refused> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Refused::Closed(job));
        }
        if !waiting.has_room(&job) {
            return Err(Refused::Full(QueueFull));
        }
        waiting.push(job);
        self.came.notify_one();
        Ok(())
    }

    /// Lines a job up when there is room; gives it back if the queue closes.
    pub(crate) fn submit_blocking(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.waiting.lock();
        while !waiting.closed && !waiting.has_room(&job) {
            self.room.wait(&mut waiting);
        }
        if waiting.closed {
            return Err(job);
        }
        waiting.push(job);
        self.came.notify_one();
        Ok(())
    }

    /// The jobs to commit next, waiting for the first: as many as fit one commit, at least one, or none where none came
    /// in `patience`. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Option<Vec<Job>> {
        let mut waiting = self.waiting.lock();
        let is_idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.closed;
        if let Some(patience) = patience {
            self.came.wait_while_for(&mut waiting, is_idle, patience);
        } else {
            self.came.wait_while(&mut waiting, is_idle);
        }
        if waiting.jobs.is_empty() {
            return (!waiting.closed).then(Vec::new);
        }
        if !waiting.is_group_whole() {
            self.came.wait_while_for(&mut waiting, |waiting| !waiting.is_group_whole(), GATHER);
        }
        let mut jobs: Vec<Job> = Vec::new();
        let (mut ops, mut bytes) = (0, 0);
        while let Some(job) = waiting.jobs.pop_front_if(|job| {
            let fits = ops + job.ops.len() <= GROUP_OPS_MAX && bytes + job.bytes <= GROUP_BYTES_MAX;
            fits || jobs.is_empty()
        }) {
            ops += job.ops.len();
            bytes += job.bytes;
            jobs.push(job);
        }
        waiting.ops -= ops;
        waiting.bytes -= bytes;
        waiting.last_group = jobs.len();
        self.room.notify_all();
        Some(jobs)
    }

    /// Takes no more jobs; those that wait are still committed.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.came.notify_all();
        self.room.notify_all();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting_ops", &self.waiting.lock().ops).finish_non_exhaustive()
    }
}
