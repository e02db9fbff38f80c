//! Jobs that wait for a worker.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    super::sync::{Condvar, Mutex},
    flood::Flood,
};

/// How long a job is worth starting.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// Not after this.
    pub(crate) deadline: Instant,
    /// Not once this has fired.
    pub(crate) cancel: CancellationToken,
}

impl Ticket {
    fn is_spent(&self) -> bool {
        self.cancel.is_cancelled() || Instant::now() >= self.deadline
    }
}

/// One step of a job; it is told how long it waited.
pub(super) enum Step<C> {
    /// Done by itself.
    Alone(Box<dyn FnOnce(Duration) + Send>),
    /// Done together with others of its kind that wait.
    InCompany(C),
}

/// One call's work. Its steps may run at once on several workers, and those of several jobs take
/// turns, so that a large job does not hold up a small one.
pub(super) struct Job<C> {
    ticket: Ticket,
    /// When it came.
    since: Instant,
    /// When it last went to the end of the queue: with every turn it takes.
    queued: Instant,
    steps: VecDeque<Step<C>>,
}

/// What a worker got. Once it is done it says so by [`Queue::done`].
pub(super) enum Taken<C> {
    /// Something to do, after this long a wait.
    Alone(Box<dyn FnOnce(Duration) + Send>, Duration),
    /// Things to do together, each after its wait.
    InCompany(Vec<(C, Duration)>),
    /// Nothing: a job nobody waits for any more. Dropping it tells its waiters.
    Spent(Job<C>),
    /// Nothing, ever again.
    Closed,
}

/// Why a job was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

pub(super) struct Queue<C> {
    state: Mutex<State<C>>,
    ready: Condvar,
    jobs_max: usize,
    /// How long a job may have to wait before no more are taken in, as long as there is no flood.
    patience: Duration,
    company: Company,
}

/// The weight of the last steps done in what a step takes: a fourth of it is forgotten with each piece of work.
const RECENT: f64 = 0.25;

/// How much is done together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Company {
    /// Steps at most.
    pub(super) max: usize,
    /// Threads among whom those that wait are shared.
    pub(super) takers: usize,
}

struct State<C> {
    /// Whose turn comes first is at the front.
    waiting: VecDeque<Job<C>>,
    /// Seconds a taker is busy with a step, of late.
    step_s: f64,
    flood: Flood,
    closed: bool,
}

impl<C> Queue<C> {
    /// At most `jobs_max` jobs wait, and no more are taken in once the steps ahead of a newcomer would take `patience`
    /// at the pace of late, or the one whose turn is next has waited for it as long already: who would wait longer is
    /// better told at once. In a flood that is less. (By Little's law; a pace that stalls is told by the one in front,
    /// as in CoDel: Nichols and Jacobson 2012, "Controlling queue delay".)
    ///
    /// Since jobs take turns, a job of many steps is ahead of a newcomer by no more steps than that has itself.
    pub(super) fn new(jobs_max: usize, patience: Duration, company: Company) -> Queue<C> {
        let state = State { waiting: VecDeque::new(), step_s: 0.0, flood: Flood::default(), closed: false };
        Queue { state: Mutex::new(state), ready: Condvar::new(), jobs_max, patience, company }
    }

    /// Whether a job of one step is refused now, unless those that wait turn out to have been given up. If so it counts
    /// as one that was.
    pub(super) fn refuses(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let refuses = self.is_full(&state, 1, now);
        if refuses {
            state.flood.refused(now);
        }
        refuses
    }

    /// Whether there is no room for a job of so many steps.
    fn is_full(&self, state: &State<C>, steps: usize, now: Instant) -> bool {
        let Some(next) = state.waiting.front() else { return false };
        let patience = state.flood.patience(now, self.patience);
        let ahead: usize = state.waiting.iter().map(|job| job.steps.len().min(steps)).sum();
        let ahead_s = ahead as f64 * state.step_s / self.company.takers as f64;
        state.waiting.len() >= self.jobs_max
            || ahead_s >= patience.as_secs_f64()
            || now.duration_since(next.queued) >= patience
    }

    /// Notes how long a taker was busy with so many steps.
    pub(super) fn done(&self, steps: usize, took: Duration) {
        let mut state = self.state.lock();
        state.step_s += RECENT * (took.as_secs_f64() / steps as f64 - state.step_s);
    }

    /// Takes a job in, at once or not at all, and says how many wait. Jobs that nobody waits for
    /// any more make room; they are handed back, to be dropped.
    pub(super) fn push(&self, ticket: Ticket, steps: Vec<Step<C>>) -> (Result<usize, Refused>, Vec<Job<C>>) {
        let (mut spent, now) = (Vec::new(), Instant::now());
        let mut state = self.state.lock();
        if state.closed {
            return (Err(Refused::Closed), spent);
        }
        if self.is_full(&state, steps.len(), now) {
            spent = state.take_spent();
        }
        if self.is_full(&state, steps.len(), now) {
            state.flood.refused(now);
            return (Err(Refused::Full), spent);
        }
        let several = steps.len() > 1;
        if !steps.is_empty() {
            state.waiting.push_back(Job { ticket, since: now, queued: now, steps: steps.into() });
        }
        let depth = state.waiting.len();
        drop(state);
        if several {
            self.ready.notify_all();
        } else {
            self.ready.notify_one();
        }
        (Ok(depth), spent)
    }

    /// Waits for something to do. What is done in company brings its share of those who wait for the
    /// same, but nobody is waited for. After [`Queue::close`] what still waits is handed out first.
    /// Also says how many jobs still wait.
    pub(super) fn take(&self) -> (Taken<C>, usize) {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                let taken = state.take_front(self.company);
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

impl<C> State<C> {
    fn take_spent(&mut self) -> Vec<Job<C>> {
        let (spent, wanted): (VecDeque<Job<C>>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(|job| job.ticket.is_spent());
        self.waiting = wanted;
        spent.into()
    }

    fn take_front(&mut self, with: Company) -> Taken<C> {
        let mut job = self.waiting.pop_front().expect("some job waits");
        if job.ticket.is_spent() {
            return Taken::Spent(job);
        }
        let step = job.steps.pop_front().expect("a job waits only while it has steps");
        let waited = job.since.elapsed();
        if !job.steps.is_empty() {
            job.queued = Instant::now();
            self.waiting.push_back(job);
        }
        match step {
            Step::Alone(step) => Taken::Alone(step, waited),
            Step::InCompany(first) => Taken::InCompany(self.company((first, waited), with)),
        }
    }

    /// `first` and those who may share its way: of the steps that wait to be done in company this taker's
    /// share, oldest first, the next one of each job.
    fn company(&mut self, first: (C, Duration), with: Company) -> Vec<(C, Duration)> {
        let comes =
            |job: &Job<C>| matches!(job.steps.front(), Some(Step::InCompany(_))) && !job.ticket.is_spent();
        let mut company = vec![first];
        if with.max == 1 {
            return company;
        }
        let waiters = self.waiting.iter().filter(|job| comes(job)).count();
        let share = (1 + waiters).div_ceil(with.takers).min(with.max);
        let mut place = 0;
        while company.len() < share && place < self.waiting.len() {
            let job = &mut self.waiting[place];
            if !comes(job) {
                place += 1;
                continue;
            }
            let Some(Step::InCompany(step)) = job.steps.pop_front() else {
                unreachable!("its next step was just looked at")
            };
            company.push((step, job.since.elapsed()));
            if job.steps.is_empty() {
                self.waiting.remove(place);
            } else {
                place += 1;
            }
        }
        company
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_job_that_has_its_turns_is_no_queue_that_stands() {
        let patience = Duration::from_secs(3600);
        let queue: Queue<()> = Queue::new(1000, patience, Company { max: 1, takers: 1 });
        let ticket = Ticket { deadline: Instant::now() + 2 * patience, cancel: CancellationToken::new() };
        let steps = (0..100).map(|_| Step::Alone(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>));
        queue.push(ticket, steps.collect()).0.unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let turn = Instant::now();
        let (Taken::Alone(_, waited), 1) = queue.take() else { panic!("a step of the one job") };
        assert!(waited >= Duration::from_millis(2), "a step waits from when its job came: {waited:?}");
        // It does as long after its last turn as others do after they came.
        let state = queue.state.lock();
        assert!(!queue.is_full(&state, 1, turn + patience - Duration::from_nanos(1)));
        assert!(queue.is_full(&state, 1, Instant::now() + patience));
    }
}
