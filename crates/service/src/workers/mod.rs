//! Pools of worker threads behind bounded queues. Every step of a call that computes or reads a disk runs here, so that
//! no asynchronous thread does.
//!
//! Searches and documents have separate pools. The threads that embed documents run at a lower priority, so that a search
//! never waits for a batch of documents. Collections are managed on a third pool, so that they can be inspected
//! and changed while the other two are overloaded.

mod heartbeat;
mod overload;
mod queue;
mod threads;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    Error, ErrorKind,
    meter::Meter,
    pool::Pool,
    sync::{Arc, Mutex},
};
use heartbeat::Heartbeat;
use queue::{BatchPolicy, Queue, Rejected, Work};
pub(crate) use queue::{JobContext, Step};
pub(crate) use threads::lower_priority;

/// The result of a queued step. Its sender is dropped without a result if the job expired or panicked.
pub(crate) type Pending<T> = oneshot::Receiver<Result<T, Error>>;

/// Threads of [`Pool::Admin`]. Collections are changed one at a time, so a long change leaves the second thread for
/// everything else.
const ADMIN_THREADS: usize = 2;

/// Steps that cost less together than one by one.
pub(crate) trait Batchable: Send + Sized + 'static {
    /// Runs all of them; each comes with the time it waited.
    fn run(batch: Vec<(Self, Duration)>);
}

/// The options of [`WorkerPools::start`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Threads of the search pool, and as many of the ingest pool.
    pub(crate) threads: usize,
    /// Jobs that may wait in each queue.
    pub(crate) jobs_max: usize,
    /// The search queue takes no job that would wait longer.
    pub(crate) queue_delay_max: Duration,
    /// Steps that one thread runs together at most.
    pub(crate) batch_max: usize,
    /// Pin each thread of the search pool to a core, as far as there are enough.
    pub(crate) pin: bool,
}

/// The pools. `B` is the kind of step that can be batched.
pub(crate) struct WorkerPools<B> {
    search: Arc<Queue<B>>,
    ingest: Arc<Queue<B>>,
    admin: Arc<Queue<B>>,
    meter: Arc<Meter>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    heartbeats: Mutex<Vec<(Pool, Arc<Heartbeat>)>>,
}

/// Workers of a pool that have been running one step for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StuckWorkers {
    pub(crate) pool: Pool,
    /// How many are stuck, of how many.
    pub(crate) workers: usize,
    pub(crate) of: usize,
    /// How long the longest step has been running.
    pub(crate) longest: Duration,
}

impl<B: Batchable> WorkerPools<B> {
    /// Starts the threads.
    pub(crate) fn start(options: Options, meter: Arc<Meter>) -> std::io::Result<WorkerPools<B>> {
        let Options { threads, jobs_max, queue_delay_max, batch_max, pin } = options;
        let queue = |queue_delay_max, threads| {
            Arc::new(Queue::new(jobs_max, queue_delay_max, BatchPolicy { max: batch_max, threads }))
        };
        let workers = WorkerPools {
            search: queue(queue_delay_max, threads),
            // Writers prefer waiting to an error.
            ingest: queue(Duration::MAX, threads),
            admin: queue(Duration::MAX, ADMIN_THREADS),
            meter,
            threads: Mutex::default(),
            heartbeats: Mutex::default(),
        };
        for pool in Pool::ALL {
            let threads = if pool == Pool::Admin { ADMIN_THREADS } else { threads };
            for number in 0..threads {
                let (queue, meter) = (workers.queue(pool).clone(), workers.meter.clone());
                let heartbeat = Arc::new(Heartbeat::new());
                workers.heartbeats.lock().push((pool, heartbeat.clone()));
                let run = move || {
                    match pool {
                        Pool::Search if pin => threads::pin(number),
                        Pool::Search | Pool::Admin => {}
                        Pool::Ingest => lower_priority(),
                    }
                    // A panic outside of a job, such as while a job is dropped, must not cost the pool a thread.
                    while catch_panic(&meter, || work(pool, &queue, &heartbeat, &meter)).is_none() {}
                };
                let name = format!("nearfield-{}-{number}", pool.name());
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
    pub(crate) fn push<T, W>(&self, pool: Pool, context: JobContext, work: W) -> Result<Pending<T>, Error>
    where
        T: Send + 'static,
        W: FnOnce(Duration) -> Result<T, Error> + Send + 'static,
    {
        let (step, pending) = step(work);
        self.push_steps(pool, context, vec![step])?;
        Ok(pending)
    }

    /// Queues a job of several steps that may run at once.
    pub(crate) fn push_all<T, W>(
        &self,
        pool: Pool,
        context: JobContext,
        works: impl IntoIterator<Item = W>,
    ) -> Result<Vec<Pending<T>>, Error>
    where
        T: Send + 'static,
        W: FnOnce(Duration) -> Result<T, Error> + Send + 'static,
    {
        let (steps, pending) = works.into_iter().map(step).unzip();
        self.push_steps(pool, context, steps)?;
        Ok(pending)
    }

    /// Queues a job of steps that report their results themselves. A job without steps is done at once.
    pub(crate) fn push_steps(
        &self,
        pool: Pool,
        context: JobContext,
        steps: Vec<Step<B>>,
    ) -> Result<(), Error> {
        if steps.is_empty() {
            return Ok(());
        }
        let (admitted, expired) = self.queue(pool).push(context, steps);
        for job in expired {
            self.meter.dropped();
            drop(job);
        }
        match admitted {
            Ok(depth) => {
                self.meter.queue_depth(pool, depth);
                Ok(())
            }
            Err(Rejected::Closed) => Err(Error::closing()),
            Err(Rejected::Full) => {
                self.meter.rejected(pool);
                Err(overloaded())
            }
        }
    }

    /// Whether a job would be rejected now. If so it is counted as rejected.
    pub(crate) fn rejects(&self, pool: Pool) -> bool {
        let is_rejected = self.queue(pool).rejects();
        if is_rejected {
            self.meter.rejected(pool);
        }
        is_rejected
    }

    /// Lets the workers finish what is queued, and waits for them to end.
    pub(crate) fn close(&self) {
        Pool::ALL.into_iter().for_each(|pool| self.queue(pool).close());
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.join().expect("a worker catches every panic of its jobs");
        }
    }

    /// Workers that have been running one step for at least `after`, by pool.
    pub(crate) fn stuck(&self, after: Duration) -> Vec<StuckWorkers> {
        let heartbeats = self.heartbeats.lock();
        let stuck = |pool: Pool| {
            let of = heartbeats.iter().filter(|(other, _)| *other == pool);
            let busy = of.clone().filter_map(|(_, heartbeat)| heartbeat.busy_for());
            let stuck = busy.filter(|busy| *busy >= after);
            let longest = stuck.clone().max()?;
            Some(StuckWorkers { pool, workers: stuck.count(), of: of.count(), longest })
        };
        Pool::ALL.into_iter().filter_map(stuck).collect()
    }

    fn queue(&self, pool: Pool) -> &Arc<Queue<B>> {
        match pool {
            Pool::Search => &self.search,
            Pool::Ingest => &self.ingest,
            Pool::Admin => &self.admin,
        }
    }
}

/// The error for a job that would wait too long.
pub(crate) fn overloaded() -> Error {
    let message = "the server is overloaded: too many calls are waiting for a worker; try again in a second";
    Error::new(ErrorKind::Overloaded, "overloaded", message)
}

fn step<B, T, W>(work: W) -> (Step<B>, Pending<T>)
where
    T: Send + 'static,
    W: FnOnce(Duration) -> Result<T, Error> + Send + 'static,
{
    let (reply, pending) = oneshot::channel();
    let step = Box::new(move |waited| {
        // Sending fails only if the caller has gone.
        let _ = reply.send(work(waited));
    });
    (Step::Single(step), pending)
}

fn work<B: Batchable>(pool: Pool, queue: &Queue<B>, heartbeat: &Heartbeat, meter: &Meter) {
    loop {
        let (work, left) = queue.take();
        meter.queue_depth(pool, left);
        match work {
            Work::Single(step, waited) => {
                let took = heartbeat.during(|| _ = catch_panic(meter, || step(waited)));
                queue.done(1, took);
            }
            Work::Batch(batch) => {
                let steps = batch.len();
                let took = heartbeat.during(|| _ = catch_panic(meter, || B::run(batch)));
                queue.done(steps, took);
            }
            Work::Expired(job) => {
                meter.dropped();
                drop(job);
            }
            Work::Closed => return,
        }
    }
}

/// What `work` returns; `None` if it panics, which is counted and logged.
pub(crate) fn catch_panic<T>(meter: &Meter, work: impl FnOnce() -> T) -> Option<T> {
    // State that steps share is behind locks without poisoning and is consistent between statements; a step's own state
    // is dropped with it.
    let result = catch_unwind(AssertUnwindSafe(work));
    if result.is_err() {
        meter.panicked();
        tracing::error!("a job panicked; the worker continues");
    }
    result.ok()
}

#[cfg(test)]
mod tests;
