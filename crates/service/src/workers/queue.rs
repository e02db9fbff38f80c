//! A bounded queue of jobs.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::overload::OverloadDetector;
use crate::sync::{Condvar, Mutex};

/// How long a job may wait to be started.
#[derive(Clone, Debug)]
pub(crate) struct JobContext {
    /// The job is dropped if it has not started by then.
    pub(crate) deadline: Instant,
    /// The job is dropped if this is cancelled before it has started.
    pub(crate) cancel: CancellationToken,
}

impl JobContext {
    fn is_expired(&self) -> bool {
        self.cancel.is_cancelled() || Instant::now() >= self.deadline
    }
}

/// One step of a job. It receives the time that it waited.
pub(crate) enum Step<B> {
    /// Runs alone.
    Single(Box<dyn FnOnce(Duration) + Send>),
    /// Runs together with others of its kind.
    Batchable(B),
}

/// The work of one call. Its steps may run on several threads at once. The steps of several jobs alternate, so that a
/// large job does not delay a small one.
pub(super) struct Job<B> {
    context: JobContext,
    /// When it was pushed.
    pushed: Instant,
    /// When it last moved to the end of the queue: with every step that is taken.
    requeued: Instant,
    steps: VecDeque<Step<B>>,
}

/// What [`Queue::take`] returns. Once it is done the thread calls [`Queue::done`].
pub(super) enum Work<B> {
    /// One step, and how long it waited.
    Single(Box<dyn FnOnce(Duration) + Send>, Duration),
    /// Steps to run together, and how long each waited.
    Batch(Vec<(B, Duration)>),
    /// A job whose deadline has passed or whose caller has gone. Dropping it notifies the caller.
    Expired(Job<B>),
    /// The queue is closed and empty.
    Closed,
}

/// Why a job was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    Full,
    Closed,
}

pub(super) struct Queue<B> {
    state: Mutex<State<B>>,
    ready: Condvar,
    jobs_max: usize,
    /// How long a job may have to wait before new ones are rejected, while there is no overload.
    queue_delay_max: Duration,
    policy: BatchPolicy,
}

/// Weight of the latest steps in the moving average of the time per step.
const RECENT: f64 = 0.25;

/// How many steps run together.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchPolicy {
    /// Steps per batch at most.
    pub(super) max: usize,
    /// Threads that share the waiting steps.
    pub(super) threads: usize,
}

struct State<B> {
    /// The job whose step is taken next is at the front.
    waiting: VecDeque<Job<B>>,
    /// Moving average of the seconds a thread spends on a step.
    step_s: f64,
    overload: OverloadDetector,
    closed: bool,
}

impl<B> Queue<B> {
    /// A queue of at most `jobs_max` jobs. It also rejects jobs while the steps ahead of a new one would take
    /// `queue_delay_max` at the recent pace, or the job at the front has waited that long: a caller is better rejected at
    /// once than late. During an overload the limit is lower. (By Little's law; a stalled pace shows at the front of the
    /// queue, as in CoDel: Nichols and Jacobson 2012, "Controlling queue delay".)
    ///
    /// Since jobs alternate, a job of many steps is ahead of a new one by no more steps than that has itself.
    pub(super) fn new(jobs_max: usize, queue_delay_max: Duration, policy: BatchPolicy) -> Queue<B> {
        let state = State {
            waiting: VecDeque::new(),
            step_s: 0.0,
            overload: OverloadDetector::default(),
            closed: false,
        };
        Queue { state: Mutex::new(state), ready: Condvar::new(), jobs_max, queue_delay_max, policy }
    }

    /// Whether a job of one step would be rejected now, ignoring expired jobs; counts as a rejection.
    pub(super) fn rejects(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_full = self.is_full(&state, 1, now);
        if is_full {
            state.overload.rejected(now);
        }
        is_full
    }

    /// Whether a job of this many steps is rejected.
    fn is_full(&self, state: &State<B>, steps: usize, now: Instant) -> bool {
        let Some(next) = state.waiting.front() else { return false };
        let delay_max = state.overload.queue_delay_max(now, self.queue_delay_max);
        let ahead: usize = state.waiting.iter().map(|job| job.steps.len().min(steps)).sum();
        let ahead_s = ahead as f64 * state.step_s / self.policy.threads as f64;
        state.waiting.len() >= self.jobs_max
            || ahead_s >= delay_max.as_secs_f64()
            || now.duration_since(next.requeued) >= delay_max
    }

    /// Records how long a thread spent on this many steps.
    pub(super) fn done(&self, steps: usize, took: Duration) {
        let mut state = self.state.lock();
        state.step_s += RECENT * (took.as_secs_f64() / steps as f64 - state.step_s);
    }

    /// Queues a job, or rejects it at once; returns how many jobs wait. Expired jobs make room; they are returned, to be
    /// dropped outside the lock.
    pub(super) fn push(
        &self,
        context: JobContext,
        steps: Vec<Step<B>>,
    ) -> (Result<usize, Rejected>, Vec<Job<B>>) {
        let (mut expired, now) = (Vec::new(), Instant::now());
        let mut state = self.state.lock();
        if state.closed {
            return (Err(Rejected::Closed), expired);
        }
        if self.is_full(&state, steps.len(), now) {
            expired = state.take_expired();
        }
        if self.is_full(&state, steps.len(), now) {
            state.overload.rejected(now);
            return (Err(Rejected::Full), expired);
        }
        let several = steps.len() > 1;
        state.waiting.push_back(Job { context, pushed: now, requeued: now, steps: steps.into() });
        let depth = state.waiting.len();
        drop(state);
        if several {
            self.ready.notify_all();
        } else {
            self.ready.notify_one();
        }
        (Ok(depth), expired)
    }

    /// Waits for work, and returns how many jobs still wait. A batchable step brings this thread's share of the other
    /// batchable steps that wait; nothing waits for a batch to fill. After [`Queue::close`] the remaining jobs are
    /// returned first.
    pub(super) fn take(&self) -> (Work<B>, usize) {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                let work = state.take_front(self.policy);
                return (work, state.waiting.len());
            }
            if state.closed {
                return (Work::Closed, 0);
            }
            self.ready.wait(&mut state);
        }
    }

    /// Rejects every job from now on.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    #[cfg(test)]
    pub(super) fn depth(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl<B> State<B> {
    fn take_expired(&mut self) -> Vec<Job<B>> {
        let (expired, live): (VecDeque<Job<B>>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(|job| job.context.is_expired());
        self.waiting = live;
        expired.into()
    }

    fn take_front(&mut self, policy: BatchPolicy) -> Work<B> {
        let mut job = self.waiting.pop_front().expect("the caller checked that a job waits");
        if job.context.is_expired() {
            return Work::Expired(job);
        }
        let step = job.steps.pop_front().expect("a waiting job has steps");
        let waited = job.pushed.elapsed();
        if !job.steps.is_empty() {
            job.requeued = Instant::now();
            self.waiting.push_back(job);
        }
        match step {
            Step::Single(step) => Work::Single(step, waited),
            Step::Batchable(first) => Work::Batch(self.take_batch((first, waited), policy)),
        }
    }

    /// A batch of `first` and this thread's share of the batchable steps that wait, oldest first, the next step of each
    /// job.
    fn take_batch(&mut self, first: (B, Duration), policy: BatchPolicy) -> Vec<(B, Duration)> {
        let fits =
            |job: &Job<B>| matches!(job.steps.front(), Some(Step::Batchable(_))) && !job.context.is_expired();
        let mut batch = vec![first];
        if policy.max == 1 {
            return batch;
        }
        let candidates = self.waiting.iter().filter(|job| fits(job)).count();
        let share = (1 + candidates).div_ceil(policy.threads).min(policy.max);
        let mut position = 0;
        while batch.len() < share && position < self.waiting.len() {
            let job = &mut self.waiting[position];
            if !fits(job) {
                position += 1;
                continue;
            }
            let Some(Step::Batchable(step)) = job.steps.pop_front() else {
                unreachable!("checked above that its next step is batchable")
            };
            batch.push((step, job.pushed.elapsed()));
            if job.steps.is_empty() {
                self.waiting.remove(position);
            } else {
                position += 1;
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_job_whose_steps_are_taken_does_not_count_as_a_stalled_queue() {
        let delay_max = Duration::from_secs(3600);
        let queue: Queue<()> = Queue::new(1000, delay_max, BatchPolicy { max: 1, threads: 1 });
        let context =
            JobContext { deadline: Instant::now() + 2 * delay_max, cancel: CancellationToken::new() };
        let steps = (0..100).map(|_| Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>));
        queue.push(context, steps.collect()).0.unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let taken = Instant::now();
        let (Work::Single(_, waited), 1) = queue.take() else { panic!("expected a step of the one job") };
        assert!(waited >= Duration::from_millis(2), "a step waits from when its job was pushed: {waited:?}");
        // It counts as stalled only as long after its last step as other jobs after they were pushed.
        let state = queue.state.lock();
        assert!(!queue.is_full(&state, 1, taken + delay_max - Duration::from_nanos(1)));
        assert!(queue.is_full(&state, 1, Instant::now() + delay_max));
    }
}
