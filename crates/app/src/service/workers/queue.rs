//! Jobs that wait for a worker.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::super::sync::{Condvar, Mutex};

/// How long a job is worth starting.
#[derive(Clone, Debug)]
pub(in crate::service) struct Ticket {
    /// Not after this.
    pub(in crate::service) deadline: Instant,
    /// Not once this has fired.
    pub(in crate::service) cancel: CancellationToken,
}

impl Ticket {
    fn is_spent(&self) -> bool {
        self.cancel.is_cancelled() || Instant::now() >= self.deadline
    }
}

/// One step of a job; it is told how long it waited.
pub(super) type Step = Box<dyn FnOnce(Duration) + Send>;

/// One call's work. Its steps may run at once on several workers, and those of several jobs take turns, so that a large job does not hold up a small one.
pub(super) struct Job {
    ticket: Ticket,
    queued: Instant,
    steps: VecDeque<Step>,
}

/// What a worker got.
pub(super) enum Taken {
    /// Something to do, after this long a wait.
    Step(Step, Duration),
    /// Nothing: a job nobody waits for any more. Dropping it tells its waiters.
    Spent(Job),
    /// Nothing, ever again.
    Closed,
}

/// Why a job was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    jobs_max: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    /// At most `jobs_max` jobs wait.
    pub(super) fn new(jobs_max: usize) -> Queue {
        Queue { state: Mutex::new(State::default()), ready: Condvar::new(), jobs_max }
    }

    /// Takes a job in, at once or not at all, and says how many wait. Jobs that nobody waits for
    /// any more make room; they are handed back, to be dropped.
    pub(super) fn push(&self, ticket: Ticket, steps: Vec<Step>) -> (Result<usize, Refused>, Vec<Job>) {
        let mut spent = Vec::new();
        let mut state = self.state.lock();
        if state.closed {
            return (Err(Refused::Closed), spent);
        }
        let waiting = &mut state.waiting;
        if waiting.len() >= self.jobs_max {
            spent = take_spent(waiting);
        }
        if waiting.len() >= self.jobs_max {
            return (Err(Refused::Full), spent);
        }
        let several = steps.len() > 1;
        if !steps.is_empty() {
            waiting.push_back(Job { ticket, queued: Instant::now(), steps: steps.into() });
        }
        let depth = waiting.len();
        drop(state);
        if several {
            self.ready.notify_all();
        } else {
            self.ready.notify_one();
        }
        (Ok(depth), spent)
    }

    /// Waits for something to do. After [`Queue::close`] what still waits is handed out first.
    /// Also says how many jobs still wait.
    pub(super) fn take(&self) -> (Taken, usize) {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                let taken = take_front(&mut state.waiting);
                return (taken, state.waiting.len());
            }
            if state.closed {
                return (Taken::Closed, 0);
            }
            self.ready.wait(&mut state);
        }
    }

    /// Takes no more in.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    #[cfg(test)]
    pub(super) fn depth(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

fn take_spent(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let (spent, wanted): (VecDeque<Job>, _) =
        std::mem::take(waiting).into_iter().partition(|job| job.ticket.is_spent());
    *waiting = wanted;
    spent.into()
}

fn take_front(waiting: &mut VecDeque<Job>) -> Taken {
    let mut job = waiting.pop_front().expect("some job waits");
    if job.ticket.is_spent() {
        return Taken::Spent(job);
    }
    let step = job.steps.pop_front().expect("a job waits only while it has steps");
    let waited = job.queued.elapsed();
    if !job.steps.is_empty() {
        waiting.push_back(job);
    }
    Taken::Step(step, waited)
}
