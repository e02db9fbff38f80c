//! Two fixed sets of threads behind bounded queues: where every step of a call that computes or
//! reads a disk runs, so that no asynchronous thread does. Searches have the one, documents on
//! their way in the other, whose threads give way to the first on a busy core: so a search never
//! waits for a batch of documents to be embedded.

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
    sync::{Arc, Mutex},
};
pub(super) use queue::Ticket;
use queue::{Queue, Refused, Step, Taken};

/// An answer on its way. The sender is dropped unanswered if the job was spent or panicked.
pub(super) type Pending<T> = oneshot::Receiver<Result<T, Error>>;

/// Which threads a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Searches and reads.
    Direct,
    /// Preparing and embedding documents.
    Bulk,
}

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Lane::Direct => "direct",
            Lane::Bulk => "bulk",
        }
    }
}

/// The threads.
pub(super) struct Workers {
    direct: Arc<Queue>,
    bulk: Arc<Queue>,
    meter: Arc<Meter>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts `threads` workers a lane; each lane has a queue of at most `jobs_max` jobs. With
    /// `pin` the direct ones stay each on a core of its own, as far as there are enough.
    pub(super) fn start(
        threads: usize,
        jobs_max: usize,
        pin: bool,
        meter: Arc<Meter>,
    ) -> std::io::Result<Workers> {
        let (direct, bulk) = (Arc::new(Queue::new(jobs_max)), Arc::new(Queue::new(jobs_max)));
        let workers = Workers { direct, bulk, meter, threads: Mutex::default() };
        for lane in [Lane::Direct, Lane::Bulk] {
            for number in 0..threads {
                let (queue, meter) = (workers.queue(lane).clone(), workers.meter.clone());
                let run = move || {
                    match lane {
                        Lane::Direct if pin => threads::pin(number),
                        Lane::Direct => {}
                        Lane::Bulk => threads::give_way(),
                    }
                    work(lane, &queue, &meter);
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

    /// Lets the workers finish what is queued, and waits for them to end.
    pub(super) fn close(&self) {
        self.direct.close();
        self.bulk.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.join().expect("a worker catches every panic of its jobs");
        }
    }

    fn queue(&self, lane: Lane) -> &Arc<Queue> {
        match lane {
            Lane::Direct => &self.direct,
            Lane::Bulk => &self.bulk,
        }
    }

    fn admit(&self, lane: Lane, ticket: Ticket, steps: Vec<Step>) -> Result<(), Error> {
        let (admitted, spent) = self.queue(lane).push(ticket, steps);
        for job in spent {
            self.meter.dropped();
            drop(job);
        }
        match admitted {
            Ok(depth) => {
                self.meter.queue_depth(lane.name(), depth);
                Ok(())
            }
            Err(Refused::Closed) => Err(Error::closing()),
            Err(Refused::Full) => {
                self.meter.rejected(lane.name());
                Err(Error::new(
                    ErrorKind::Overloaded,
                    "overloaded",
                    "too many calls wait for a worker; try again in a second",
                ))
            }
        }
    }
}

fn step<T, W>(work: W) -> (Step, Pending<T>)
where
    T: Send + 'static,
    W: FnOnce(Duration) -> Result<T, Error> + Send + 'static,
{
    let (answer, pending) = oneshot::channel();
    let step = Box::new(move |waited| {
        // A caller who has gone leaves nobody to tell.
        let _ = answer.send(work(waited));
    });
    (step, pending)
}

fn work(lane: Lane, queue: &Queue, meter: &Meter) {
    loop {
        let (taken, left) = queue.take();
        meter.queue_depth(lane.name(), left);
        match taken {
            Taken::Step(step, waited) => {
                // Whatever a step shares is behind locks without poison and is left whole
                // between statements; its own state dies with it.
                if catch_unwind(AssertUnwindSafe(|| step(waited))).is_err() {
                    meter.panicked();
                    tracing::error!("a job panicked; the worker goes on");
                }
            }
            Taken::Spent(job) => {
                meter.dropped();
                drop(job);
            }
            Taken::Closed => return,
        }
    }
}

#[cfg(test)]
mod tests;
