use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::*;

fn job_context() -> JobContext {
    JobContext { deadline: Instant::now() + Duration::from_secs(600), cancel: CancellationToken::new() }
}

/// Maximum steps per batch in these tests.
const BATCH_MAX: usize = 4;

/// A step that reports the size of its batch.
struct CountedStep {
    number: usize,
    done: mpsc::Sender<(usize, usize)>,
}

impl Batchable for CountedStep {
    fn run(batch: Vec<(CountedStep, Duration)>) {
        let batch_len = batch.len();
        for (CountedStep { number, done }, _) in batch {
            done.send((number, batch_len)).unwrap();
        }
    }
}

fn queue(jobs_max: usize, threads: usize) -> Queue<CountedStep> {
    Queue::new(jobs_max, Duration::MAX, BatchPolicy { max: BATCH_MAX, threads })
}

fn workers(threads: usize, jobs_max: usize) -> WorkerPools<CountedStep> {
    start(threads, jobs_max, false)
}

fn start(threads: usize, jobs_max: usize, pin: bool) -> WorkerPools<CountedStep> {
    let options = Options { threads, jobs_max, queue_delay_max: Duration::MAX, batch_max: BATCH_MAX, pin };
    WorkerPools::start(options, Arc::new(Meter::new())).unwrap()
}

/// Keeps one worker busy until the sender it returns is dropped.
fn occupy(workers: &WorkerPools<CountedStep>, pool: Pool) -> (mpsc::Sender<()>, Pending<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let pending = workers
        .push(pool, job_context(), move |_| {
            started.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        })
        .unwrap();
    has_started.recv().unwrap();
    (release, pending)
}

/// A step that sends its name to `trace`.
fn named(trace: &mpsc::Sender<&'static str>, name: &'static str) -> Step<CountedStep> {
    let trace = trace.clone();
    Step::Single(Box::new(move |_| trace.send(name).unwrap()))
}

fn push(queue: &Queue<CountedStep>, steps: Vec<Step<CountedStep>>) -> Result<usize, Rejected> {
    queue.push(job_context(), steps).0
}

/// Runs the queued steps in the order in which a single worker would run them.
fn run_all(queue: &Queue<CountedStep>) {
    queue.close();
    loop {
        match queue.take().0 {
            Work::Single(step, _) => step(Duration::ZERO),
            Work::Batch(batch) => CountedStep::run(batch),
            Work::Expired(_) => {}
            Work::Closed => return,
        }
    }
}

#[test]
fn a_full_pool_rejects_jobs_immediately_while_the_others_continue() {
    for (full, other) in [(Pool::Search, Pool::Ingest), (Pool::Ingest, Pool::Admin)] {
        let workers = workers(1, 2);
        let (release, busy) = occupy(&workers, full);
        let waiting: Vec<_> =
            (0..2).map(|n| workers.push(full, job_context(), move |_| Ok(n)).unwrap()).collect();
        let rejected = workers.push(full, job_context(), |_| Ok(())).unwrap_err();
        assert_eq!((rejected.kind, rejected.code), (ErrorKind::Overloaded, "overloaded"));
        assert_eq!(workers.meter.activity().rejected, 1);
        // Runs while the other pool is full.
        let answered = workers.push(other, job_context(), |_| Ok(7)).unwrap();
        assert_eq!(answered.blocking_recv().unwrap(), Ok(7));
        drop(release);
        busy.blocking_recv().unwrap().unwrap();
        let answers: Vec<_> =
            waiting.into_iter().map(|answer| answer.blocking_recv().unwrap().unwrap()).collect();
        assert_eq!(answers, [0, 1]);
        workers.close();
    }
}

#[test]
fn cancelled_and_late_jobs_are_dropped_before_they_run() {
    let workers = workers(1, 16);
    let held = [Pool::Search, Pool::Ingest].map(|pool| occupy(&workers, pool));
    let (ran, runs) = mpsc::channel();
    let mut dropped = Vec::new();
    let cancelled = job_context();
    let late = JobContext { deadline: Instant::now(), ..job_context() };
    for (name, job_context) in [("cancelled", cancelled.clone()), ("late", late), ("wanted", job_context())] {
        for pool in [Pool::Search, Pool::Ingest] {
            let ran = ran.clone();
            let steps = (0..3).map(|_| {
                let ran = ran.clone();
                move |_| {
                    ran.send(name).unwrap();
                    Ok(())
                }
            });
            dropped.extend(workers.push_all(pool, job_context.clone(), steps).unwrap());
        }
    }
    cancelled.cancel.cancel();
    for (release, busy) in held {
        drop(release);
        busy.blocking_recv().unwrap().unwrap();
    }
    workers.close();
    drop(ran);
    assert_eq!(runs.iter().collect::<Vec<_>>(), ["wanted"; 6]);
    let answered = dropped.into_iter().filter_map(|answer| answer.blocking_recv().ok()).count();
    assert_eq!(answered, 6);
    // Two jobs per pool with three steps each: the counter counts jobs.
    assert_eq!(workers.meter.activity().dropped, 4);
}

/// Panics when it is dropped.
struct PanicOnDrop;

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn a_job_that_panics_while_it_is_dropped_does_not_end_its_worker() {
    let workers = workers(1, 8);
    let (release, busy) = occupy(&workers, Pool::Search);
    let cancelled = job_context();
    let value = PanicOnDrop;
    let dropped = workers
        .push(Pool::Search, cancelled.clone(), move |_| {
            std::mem::forget(value);
            Ok(())
        })
        .unwrap();
    cancelled.cancel.cancel();
    drop(release);
    busy.blocking_recv().unwrap().unwrap();
    assert!(dropped.blocking_recv().is_err(), "the cancelled job ran");
    assert_eq!(
        workers.push(Pool::Search, job_context(), |_| Ok(7)).unwrap().blocking_recv().unwrap().unwrap(),
        7
    );
    assert_eq!(workers.meter.activity().panicked, 1);
    workers.close();
}

#[test]
fn a_panicking_job_is_counted_and_its_worker_continues() {
    let workers = workers(1, 4);
    let panicking =
        workers.push(Pool::Search, job_context(), |_| -> Result<(), Error> { panic!("on purpose") }).unwrap();
    assert!(panicking.blocking_recv().is_err(), "the panicking job returned a result");
    let next = workers.push(Pool::Search, job_context(), |_| Ok(3)).unwrap();
    assert_eq!(next.blocking_recv().unwrap(), Ok(3));
    assert_eq!(workers.meter.activity().panicked, 1);
    workers.close();
}

#[test]
fn closing_finishes_queued_jobs_and_rejects_new_ones() {
    let workers = workers(1, 8);
    let (release, busy) = occupy(&workers, Pool::Ingest);
    let queued: Vec<_> =
        (0..4).map(|n| workers.push(Pool::Ingest, job_context(), move |_| Ok(n)).unwrap()).collect();
    drop(release);
    workers.close();
    busy.blocking_recv().unwrap().unwrap();
    let answers: Vec<_> = queued.into_iter().map(|answer| answer.blocking_recv().unwrap().unwrap()).collect();
    assert_eq!(answers, [0, 1, 2, 3]);
    assert_eq!(workers.push(Pool::Search, job_context(), |_| Ok(())).unwrap_err().code, "closing");
}

#[test]
fn jobs_are_interleaved_step_by_step() {
    let queue = queue(100, 1);
    let (trace, names) = mpsc::channel();
    for (name, steps) in [("large", 4), ("small", 1), ("middle", 2)] {
        push(&queue, (0..steps).map(|_| named(&trace, name)).collect()).unwrap();
    }
    assert_eq!(queue.depth(), 3);
    run_all(&queue);
    drop(trace);
    let order: Vec<_> = names.iter().collect();
    assert_eq!(order, ["large", "small", "middle", "large", "middle", "large", "large"]);
}

#[test]
fn the_limit_counts_jobs_not_steps() {
    let queue = queue(1, 1);
    let (trace, _names) = mpsc::channel();
    let steps = |count: usize| (0..count).map(|_| named(&trace, "step")).collect::<Vec<_>>();
    assert_eq!(push(&queue, steps(100)), Ok(1));
    assert_eq!(push(&queue, steps(1)), Err(Rejected::Full));
    // A job with steps left returns to the queue even if the queue is full.
    let (Work::Single(..), left) = queue.take() else { panic!("no step was queued") };
    assert_eq!(left, 1);
}

#[test]
fn a_job_without_steps_is_not_queued() {
    let workers = workers(1, 1);
    let (release, busy) = occupy(&workers, Pool::Search);
    assert_eq!(workers.push_steps(Pool::Search, job_context(), vec![]), Ok(()));
    assert_eq!(workers.queue(Pool::Search).depth(), 0);
    drop(release);
    busy.blocking_recv().unwrap().unwrap();
    workers.close();
}

#[test]
fn expired_jobs_free_queue_slots() {
    let workers = workers(1, 3);
    let (release, busy) = occupy(&workers, Pool::Search);
    let cancelled = job_context();
    let dropped = workers.push(Pool::Search, cancelled.clone(), |_| Ok(())).unwrap();
    let kept: Vec<_> =
        (0..2).map(|n| workers.push(Pool::Search, job_context(), move |_| Ok(n)).unwrap()).collect();
    assert_eq!(
        workers.push(Pool::Search, job_context(), |_| Ok(())).unwrap_err().kind,
        ErrorKind::Overloaded
    );
    cancelled.cancel.cancel();
    let taken = workers.push(Pool::Search, job_context(), |_| Ok(2)).unwrap();
    assert!(dropped.blocking_recv().is_err(), "the expired job ran");
    drop(release);
    busy.blocking_recv().unwrap().unwrap();
    let answers = kept.into_iter().chain([taken]).map(|answer| answer.blocking_recv().unwrap().unwrap());
    assert_eq!(answers.collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((workers.meter.activity().rejected, workers.meter.activity().dropped), (1, 1));
    workers.close();
}

/// The batches, as step numbers, that a single one of `threads` workers forms from these jobs.
fn batches(threads: usize, jobs: Vec<(JobContext, Vec<usize>)>) -> Vec<Vec<usize>> {
    let (queue, (done, all)) = (queue(100, threads), mpsc::channel());
    for (job_context, numbers) in jobs {
        let counted = |number| Step::Batchable(CountedStep { number, done: done.clone() });
        queue.push(job_context, numbers.into_iter().map(counted).collect()).0.unwrap();
    }
    drop(done);
    run_all(&queue);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut left = 0;
    for (number, batch_len) in all {
        if left == 0 {
            batches.push(Vec::new());
            left = batch_len;
        }
        batches.last_mut().unwrap().push(number);
        left -= 1;
    }
    batches
}

#[test]
fn queued_steps_are_batched_up_to_the_maximum() {
    let single =
        |numbers: std::ops::Range<usize>| numbers.map(|number| (job_context(), vec![number])).collect();
    assert_eq!(batches(1, single(0..6)), [vec![0, 1, 2, 3], vec![4, 5]]);
    // One of two workers leaves half of the steps to the other.
    assert_eq!(batches(2, single(0..6)), [vec![0, 1, 2], vec![3, 4], vec![5]]);
}

#[test]
fn batches_interleave_large_jobs_and_skip_cancelled_ones() {
    let cancelled = job_context();
    cancelled.cancel.cancel();
    let jobs = vec![
        (job_context(), vec![0, 1, 2]),
        (cancelled, vec![10]),
        (job_context(), vec![20]),
        (job_context(), vec![30, 31]),
    ];
    assert_eq!(batches(1, jobs), [vec![0, 20, 30, 1], vec![31, 2]]);
}

#[test]
fn a_batch_neither_waits_to_fill_nor_includes_single_steps() {
    let workers = workers(1, 16);
    let (release, busy) = occupy(&workers, Pool::Search);
    let (done, all) = mpsc::channel();
    let single = |name| workers.push(Pool::Search, job_context(), move |_| Ok(name)).unwrap();
    let counted = |number| {
        let step = Step::Batchable(CountedStep { number, done: done.clone() });
        workers.push_steps(Pool::Search, job_context(), vec![step]).unwrap();
    };
    let first = single("first");
    counted(1);
    let second = single("second");
    counted(2);
    drop(release);
    busy.blocking_recv().unwrap().unwrap();
    assert_eq!(
        (first.blocking_recv().unwrap(), second.blocking_recv().unwrap()),
        (Ok("first"), Ok("second"))
    );
    assert_eq!([all.recv().unwrap(), all.recv().unwrap()], [(1, 2), (2, 2)]);
    counted(3);
    assert_eq!(all.recv().unwrap(), (3, 1));
    workers.close();
}

#[cfg(target_os = "linux")]
#[test]
fn ingest_threads_have_a_lower_priority_and_pinned_workers_one_core() {
    use rustix::{process::getpriority_process, thread::sched_getaffinity};
    let workers = start(1, 4, true);
    let observe = |pool| {
        let job = |_| Ok((getpriority_process(None).unwrap(), sched_getaffinity(None).unwrap().count()));
        workers.push(pool, job_context(), job).unwrap().blocking_recv().unwrap().unwrap()
    };
    let (search, ingest) = (observe(Pool::Search), observe(Pool::Ingest));
    assert_eq!(search.1, 1, "a pinned worker may use one core");
    assert_eq!(ingest.1, sched_getaffinity(None).unwrap().count(), "an unpinned worker may use every core");
    assert_eq!(search.0, getpriority_process(None).unwrap());
    assert!(ingest.0 > search.0, "nice value {} is not above {}", ingest.0, search.0);
    workers.close();
}

#[test]
fn a_stalled_queue_rejects_jobs_until_it_moves() {
    let queue: Queue<CountedStep> = Queue::new(100, Duration::ZERO, BatchPolicy { max: 1, threads: 1 });
    let job = || vec![Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)];
    assert_eq!(queue.push(job_context(), job()).0, Ok(1), "an empty queue is not stalled");
    assert_eq!(queue.push(job_context(), job()).0, Err(Rejected::Full));
    assert!(matches!(queue.take().0, Work::Single(..)));
    assert_eq!(queue.push(job_context(), job()).0, Ok(1));
    // A cancelled job does not make the queue count as stalled.
    let queue: Queue<CountedStep> = Queue::new(100, Duration::ZERO, BatchPolicy { max: 1, threads: 1 });
    let cancelled = job_context();
    assert_eq!(queue.push(cancelled.clone(), job()).0, Ok(1));
    cancelled.cancel.cancel();
    let (admitted, expired) = queue.push(job_context(), job());
    assert_eq!((admitted, expired.len()), (Ok(1), 1));
}

#[test]
fn a_queue_accepts_only_what_it_can_start_within_the_delay_at_the_recent_pace() {
    let job = |steps: usize| {
        (0..steps).map(|_| Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)).collect()
    };
    let delay_max = Duration::from_secs(3600);
    let queue: Queue<CountedStep> = Queue::new(1000, delay_max, BatchPolicy { max: 1, threads: 2 });
    let fill = |steps| (0..).take_while(|_| queue.push(job_context(), job(steps)).0.is_ok()).count();
    for _ in 0..100 {
        queue.done(4, delay_max.mul_f64(1.1));
    }
    // Two threads that need slightly more than a quarter of the maximum delay per step start eight steps within it.
    assert_eq!((fill(1), queue.rejects()), (8, true));
    while queue.depth() > 0 {
        queue.take();
    }
    // Steps count, not jobs: the third job would start after eight steps.
    assert_eq!((queue.rejects(), fill(4)), (false, 2));
    while queue.depth() > 0 {
        queue.take();
    }
    for _ in 0..100 {
        queue.done(1, delay_max * 5);
    }
    assert_eq!(fill(1), 1, "an empty queue accepts a job at any pace");
}

#[test]
fn a_queued_large_job_excludes_another_large_job_but_not_a_small_one() {
    let job = |steps: usize| {
        (0..steps).map(|_| Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)).collect()
    };
    let delay_max = Duration::from_secs(3600);
    let queue: Queue<CountedStep> = Queue::new(1000, delay_max, BatchPolicy { max: 1, threads: 2 });
    // Twenty steps on two threads take slightly longer than the maximum delay.
    (0..100).for_each(|_| queue.done(1, delay_max.mul_f64(0.101)));
    assert_eq!(queue.push(job_context(), job(100)).0, Ok(1));
    assert_eq!(queue.push(job_context(), job(100)).0, Err(Rejected::Full));
    // It alternates with the large job, so only three steps run before its last one.
    assert_eq!((queue.rejects(), queue.push(job_context(), job(3)).0), (false, Ok(2)));
    // One step of each of the two queued jobs runs before a new single step.
    let singles =
        (0..).take_while(|_| !queue.rejects() && queue.push(job_context(), job(1)).0.is_ok()).count();
    assert_eq!(singles, 18);
}

#[test]
fn cancelled_steps_do_not_count() {
    let queue: Queue<CountedStep> =
        Queue::new(1000, Duration::from_secs(10), BatchPolicy { max: 1, threads: 1 });
    let job = || vec![Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)];
    (0..100).for_each(|_| queue.done(1, Duration::from_secs(4)));
    let cancelled = job_context();
    for _ in 0..3 {
        queue.push(cancelled.clone(), job()).0.unwrap();
    }
    assert!(queue.rejects());
    cancelled.cancel.cancel();
    let (admitted, expired) = queue.push(job_context(), job());
    assert_eq!((admitted, expired.len(), queue.rejects()), (Ok(1), 3, false));
}

#[test]
fn a_stuck_worker_is_reported() {
    let workers = workers(2, 4);
    assert_eq!(workers.stuck(Duration::ZERO), []);
    let (release, busy) = occupy(&workers, Pool::Ingest);
    let stuck = workers.stuck(Duration::ZERO);
    assert_eq!(
        stuck.iter().map(|stuck| (stuck.pool, stuck.workers, stuck.of)).collect::<Vec<_>>(),
        [(Pool::Ingest, 1, 2)]
    );
    assert_eq!(workers.stuck(Duration::from_secs(3600)), []);
    drop(release);
    busy.blocking_recv().unwrap().unwrap();
    workers.close();
    assert_eq!(workers.stuck(Duration::ZERO), []);
}

#[test]
fn a_queue_accepts_less_under_overload_than_in_a_burst() {
    let delay_max = Duration::from_secs(3600);
    let queue: Queue<CountedStep> = Queue::new(1000, delay_max, BatchPolicy { max: 1, threads: 1 });
    (0..100).for_each(|_| queue.done(10, delay_max.mul_f64(1.01)));
    // Pushes jobs until one is rejected; returns the number of accepted jobs.
    let fill = || {
        let job = || vec![Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)];
        let accepted = (0..).take_while(|_| queue.push(job_context(), job()).0.is_ok()).count();
        (0..accepted).for_each(|_| drop(queue.take()));
        accepted
    };
    assert_eq!(fill(), 10);
    let started = Instant::now();
    while fill() != 4 {
        assert!(started.elapsed() < Duration::from_secs(10), "the overload was not detected");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fill(), 10, "the overload has ended");
}
