//! Jobs that wait for a worker, in two lanes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::super::sync::{Condvar, Mutex};

/// Direct jobs taken one after another while bulk waits, before bulk gets a turn.
const DIRECT_RUN_MAX: u32 = 16;

/// Which queue a job waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) enum Lane {
    /// Searches and reads: taken first.
    Direct,
    /// Preparing and embedding documents: taken when nothing direct waits, and once in
    /// a while when something does.
    Bulk,
}

impl Lane {
    pub(super) fn name(self) -> &'static str {
        match self {
            Lane::Direct => "direct",
            Lane::Bulk => "bulk",
        }
    }
}

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

/// One call's work. Its steps may run at once on several workers, and those of several bulk jobs
/// take turns, so that a large job does not hold up a small one.
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
    direct: VecDeque<Job>,
    bulk: VecDeque<Job>,
    direct_run: u32,
    closed: bool,
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Job> {
        match lane {
            Lane::Direct => &mut self.direct,
            Lane::Bulk => &mut self.bulk,
        }
    }

    fn next_lane(&mut self) -> Option<Lane> {
        let lane = match (self.direct.is_empty(), self.bulk.is_empty()) {
            (true, true) => return None,
            (false, true) => Lane::Direct,
            (true, false) => Lane::Bulk,
            (false, false) if self.direct_run < DIRECT_RUN_MAX => Lane::Direct,
            (false, false) => Lane::Bulk,
        };
        self.direct_run = match lane {
            Lane::Direct => self.direct_run + 1,
            Lane::Bulk => 0,
        };
        Some(lane)
    }
}

impl Queue {
    /// At most `jobs_max` jobs wait in each lane.
    pub(super) fn new(jobs_max: usize) -> Queue {
        Queue { state: Mutex::new(State::default()), ready: Condvar::new(), jobs_max }
    }

    /// Takes a job in, at once or not at all, and says how many wait in its lane. Jobs that nobody
    /// waits for any more make room; they are handed back, to be dropped.
    pub(super) fn push(
        &self,
        lane: Lane,
        ticket: Ticket,
        steps: Vec<Step>,
    ) -> (Result<usize, Refused>, Vec<Job>) {
        let mut spent = Vec::new();
        let mut state = self.state.lock();
        if state.closed {
            return (Err(Refused::Closed), spent);
        }
        let waiting = state.lane(lane);
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
    /// Also says which lane it came from and how many jobs still wait there.
    pub(super) fn take(&self) -> (Taken, Option<(Lane, usize)>) {
        let mut state = self.state.lock();
        loop {
            if let Some(lane) = state.next_lane() {
                let waiting = state.lane(lane);
                let taken = take_front(waiting);
                return (taken, Some((lane, waiting.len())));
            }
            if state.closed {
                return (Taken::Closed, None);
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
    pub(super) fn depth(&self, lane: Lane) -> usize {
        self.state.lock().lane(lane).len()
    }
}

fn take_spent(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let (spent, wanted): (VecDeque<Job>, _) =
        std::mem::take(waiting).into_iter().partition(|job| job.ticket.is_spent());
    *waiting = wanted;
    spent.into()
}

fn take_front(waiting: &mut VecDeque<Job>) -> Taken {
    let mut job = waiting.pop_front().expect("the lane was not empty");
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
