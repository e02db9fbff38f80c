//! Three fixed sets of threads behind bounded queues: where every step of a call that computes or
//! reads a disk runs, so that no asynchronous thread does. Searches have the first; documents on
//! their way in the second, whose threads give way to the first on a busy core, so that a search never
//! waits for a batch of documents to be embedded; what collections are and are to be the third, so
//! that a flood of the others does not keep anybody from looking or from mending.

mod flood;
mod pulse;
mod queue;
mod threads;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Error, ErrorKind,
    meter::Meter,
    searching::Asking,
    sync::{Arc, Mutex},
};
use pulse::Pulse;
pub(super) use queue::Ticket;
use queue::{Company, Queue, Refused, Step, Taken};
pub(super) use threads::give_way;

/// An answer on its way. The sender is dropped unanswered if the job was spent or panicked.
pub(super) type Pending<T> = oneshot::Receiver<Result<T, Error>>;

/// Which threads a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Searches, reads, and counting what matches.
    Direct,
    /// Preparing and embedding documents.
    Bulk,
    /// Making, changing and describing collections, and loading models for them.
    Admin,
}

impl Lane {
    const ALL: [Lane; 3] = [Lane::Direct, Lane::Bulk, Lane::Admin];

    pub(super) fn name(self) -> &'static str {
        match self {
            Lane::Direct => "direct",
            Lane::Bulk => "bulk",
            Lane::Admin => "admin",
        }
    }
}

/// Threads of [`Lane::Admin`]: one that works long leaves one for the rest, since changes of collections wait for each
/// other elsewhere.
const ADMIN_THREADS: usize = 2;

/// Steps that cost less together than one by one.
pub(super) trait InCompany: Send + Sized + 'static {
    /// Does all of them, each with how long it waited.
    fn run(company: Vec<(Self, Duration)>);
}

/// The threads.
pub(super) struct Workers<C = Asking> {
    direct: Arc<Queue<C>>,
    bulk: Arc<Queue<C>>,
    admin: Arc<Queue<C>>,
    meter: Arc<Meter>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pulses: Mutex<Vec<(Lane, Arc<Pulse>)>>,
}

/// Workers of a lane that do not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) lane: Lane,
    /// How many, of how many.
    pub(super) workers: usize,
    pub(super) of: usize,
    /// How long the longest of them has been at one piece of work.
    pub(super) longest: Duration,
}

impl<C: InCompany> Workers<C> {
    /// Starts `threads` workers for searches and as many for documents; each lane has a queue of at most `jobs_max`
    /// jobs (the direct one takes none in that would wait for `patience`), of which up to `company_max` are done
    /// together where they may be. With `pin` the direct ones stay each on a core of its own, as far as there are
    /// enough.
    pub(super) fn start(
        threads: usize,
        jobs_max: usize,
        patience: Duration,
        company_max: usize,
        pin: bool,
        meter: Arc<Meter>,
    ) -> std::io::Result<Workers<C>> {
        let queue =
            |patience, takers| Arc::new(Queue::new(jobs_max, patience, Company { max: company_max, takers }));
        let workers = Workers {
            direct: queue(patience, threads),
            // Documents are written by those who wait.
            bulk: queue(Duration::MAX, threads),
            admin: queue(Duration::MAX, ADMIN_THREADS),
            meter,
            threads: Mutex::default(),
            pulses: Mutex::default(),
        };
        for lane in Lane::ALL {
            let takers = if lane == Lane::Admin { ADMIN_THREADS } else { threads };
            for number in 0..takers {
                let (queue, meter) = (workers.queue(lane).clone(), workers.meter.clone());
                let pulse = Arc::new(Pulse::new());
                workers.pulses.lock().push((lane, pulse.clone()));
                let run = move || {
                    match lane {
                        Lane::Direct if pin => threads::pin(number),
                        Lane::Direct | Lane::Admin => {}
                        Lane::Bulk => give_way(),
                    }
                    work(lane, &queue, &pulse, &meter);
                };
                let name = format!("nearfield-{}-{number}", lane.name());
                match std::thread::Builder::new().name(name).spawn(run) {
                    Ok(thread) => workers.threads.lock().push(thread),
                    Err(error) => {
                        workers.close();
                        return Err(error);
                    }
                }
            }
        }
        Ok(workers)
    }

    /// Queues a job of one step.
    pub(super) fn push<T, W>(&self, lane: Lane, ticket: Ticket, work: W) -> Result<Pending<T>, Error>
    where
        T: Send + 'static,
        W: FnOnce(Duration) -> Result<T, Error> + Send + 'static,
    {
        let (step, pending) = step(work);
        self.admit(lane, ticket, vec![step])?;
        Ok(pending)
    }

    /// Queues a job of steps that are each done together with others that wait.
    pub(super) fn push_in_company(&self, lane: Lane, ticket: Ticket, steps: Vec<C>) -> Result<(), Error> {
        self.admit(lane, ticket, steps.into_iter().map(Step::InCompany).collect())
    }

    /// Queues a job of several steps that may run at once.
    pub(super) fn push_all<T, W>(
        &self,
        lane: Lane,
        ticket: Ticket,
        works: impl IntoIterator<Item = W>,
    ) -> Result<Vec<Pending<T>>, Error>
    where
        T: Send + 'static,
        W: FnOnce(Duration) -> Result<T, Error> + Send + 'static,
    {
        let (steps, pending) = works.into_iter().map(step).unzip();
        self.admit(lane, ticket, steps)?;
        Ok(pending)
    }

    /// Whether a job is refused now. If so it counts as one that was.
    pub(super) fn refuses(&self, lane: Lane) -> bool {
        let refuses = self.queue(lane).refuses();
        if refuses {
            self.meter.rejected(lane);
        }
        refuses
    }

    /// Lets the workers finish what is queued, and waits for them to end.
    pub(super) fn close(&self) {
        Lane::ALL.into_iter().for_each(|lane| self.queue(lane).close());
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.join().expect("a worker catches every panic of its jobs");
        }
    }

    /// Workers that have been at one piece of work for as long as `after`, lane by lane.
    pub(super) fn stuck(&self, after: Duration) -> Vec<Stuck> {
        let pulses = self.pulses.lock();
        let stuck = |lane: Lane| {
            let of = pulses.iter().filter(|(theirs, _)| *theirs == lane);
            let busy = of.clone().filter_map(|(_, pulse)| pulse.busy_for()).filter(|busy| *busy >= after);
            let longest = busy.clone().max()?;
            Some(Stuck { lane, workers: busy.count(), of: of.count(), longest })
        };
        Lane::ALL.into_iter().filter_map(stuck).collect()
    }

    fn queue(&self, lane: Lane) -> &Arc<Queue<C>> {
        match lane {
            Lane::Direct => &self.direct,
            Lane::Bulk => &self.bulk,
            Lane::Admin => &self.admin,
        }
    }

    fn admit(&self, lane: Lane, ticket: Ticket, steps: Vec<Step<C>>) -> Result<(), Error> {
        let (admitted, spent) = self.queue(lane).push(ticket, steps);
        for job in spent {
            self.meter.dropped();
            drop(job);
        }
        match admitted {
            Ok(depth) => {
                self.meter.queue_depth(lane, depth);
                Ok(())
            }
            Err(Refused::Closed) => Err(Error::closing()),
            Err(Refused::Full) => {
                self.meter.rejected(lane);
                Err(overloaded())
            }
        }
    }
}

/// The refusal of a job for which there is no room.
pub(super) fn overloaded() -> Error {
    let message = "too many calls wait for a worker; try again in a second";
    Error::new(ErrorKind::Overloaded, "overloaded", message)
}

fn step<C, T, W>(work: W) -> (Step<C>, Pending<T>)
where
    T: Send + 'static,
    W: FnOnce(Duration) -> Result<T, Error> + Send + 'static,
{
    let (answer, pending) = oneshot::channel();
    let step = Box::new(move |waited| {
        // A caller who has gone leaves nobody to tell.
        let _ = answer.send(work(waited));
    });
    (Step::Alone(step), pending)
}

fn work<C: InCompany>(lane: Lane, queue: &Queue<C>, pulse: &Pulse, meter: &Meter) {
    loop {
        let (taken, left) = queue.take();
        meter.queue_depth(lane, left);
        match taken {
            Taken::Alone(step, waited) => {
                let took = pulse.during(|| _ = survive(meter, || step(waited)));
                queue.done(1, took);
            }
            Taken::InCompany(company) => {
                let steps = company.len();
                let took = pulse.during(|| _ = survive(meter, || C::run(company)));
                queue.done(steps, took);
            }
            Taken::Spent(job) => {
                meter.dropped();
                drop(job);
            }
            Taken::Closed => return,
        }
    }
}

/// What `work` returns, unless it panics: that is counted and told.
pub(super) fn survive<T>(meter: &Meter, work: impl FnOnce() -> T) -> Option<T> {
    // Whatever work shares is behind locks without poison and is left whole between statements;
    // its own state dies with it.
    let result = catch_unwind(AssertUnwindSafe(work));
    if result.is_err() {
        meter.panicked();
        tracing::error!("a job panicked; the worker goes on");
    }
    result.ok()
}

#[cfg(test)]
mod tests;
