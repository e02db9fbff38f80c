use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::*;

fn job_context() -> JobContext {
    JobContext { deadline: Instant::now() + Duration::from_secs(600), cancel: CancellationToken::new() }
}

/// Steps done together in these tests at most.
const BATCH_MAX: usize = 4;

/// A step that tells how many were done with it.
struct Counted {
    number: usize,
    done: mpsc::Sender<(usize, usize)>,
}

impl Batchable for Counted {
    fn run(batch: Vec<(Counted, Duration)>) {
        let together = batch.len();
        for (Counted { number, done }, _) in batch {
            done.send((number, together)).unwrap();
        }
    }
}

fn queue(jobs_max: usize, threads: usize) -> Queue<Counted> {
    Queue::new(jobs_max, Duration::MAX, BatchPolicy { max: BATCH_MAX, threads })
}

fn workers(threads: usize, jobs_max: usize) -> Workers<Counted> {
    start(threads, jobs_max, false)
}

fn start(threads: usize, jobs_max: usize, pin: bool) -> Workers<Counted> {
    let options = Options { threads, jobs_max, queue_delay_max: Duration::MAX, batch_max: BATCH_MAX, pin };
    Workers::start(options, Arc::new(Meter::new())).unwrap()
}

/// Keeps one worker busy until the sender it returns is dropped.
fn occupy(workers: &Workers<Counted>, pool: Pool) -> (mpsc::Sender<()>, Pending<()>) {
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

/// A step that leaves its name on `trace`.
fn named(trace: &mpsc::Sender<&'static str>, name: &'static str) -> Step<Counted> {
    let trace = trace.clone();
    Step::Single(Box::new(move |_| trace.send(name).unwrap()))
}

fn push(queue: &Queue<Counted>, steps: Vec<Step<Counted>>) -> Result<usize, Rejected> {
    queue.push(job_context(), steps).0
}

/// Runs what waits in a queue, in the order a single worker would.
fn run_all(queue: &Queue<Counted>) {
    queue.close();
    loop {
        match queue.take().0 {
            Work::Single(step, _) => step(Duration::ZERO),
            Work::Batch(batch) => Counted::run(batch),
            Work::Expired(_) => {}
            Work::Closed => return,
        }
    }
}

#[test]
fn a_full_pool_rejects_at_once_while_the_others_continue() {
    for (full, other) in [(Pool::Search, Pool::Ingest), (Pool::Ingest, Pool::Admin)] {
        let workers = workers(1, 2);
        let (release, busy) = occupy(&workers, full);
        let waiting: Vec<_> =
            (0..2).map(|n| workers.push(full, job_context(), move |_| Ok(n)).unwrap()).collect();
        let refused = workers.push(full, job_context(), |_| Ok(())).unwrap_err();
        assert_eq!((refused.kind, refused.code), (ErrorKind::Overloaded, "overloaded"));
        assert_eq!(workers.meter.activity().rejected, 1);
        // Answered while the full pool is held.
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
fn what_nobody_waits_for_is_dropped_before_it_costs_anything() {
    let workers = workers(1, 16);
    let held = [Pool::Search, Pool::Ingest].map(|pool| occupy(&workers, pool));
    let (ran, runs) = mpsc::channel();
    let mut dropped = Vec::new();
    let gone = job_context();
    let late = JobContext { deadline: Instant::now(), ..job_context() };
    for (name, job_context) in [("gone", gone.clone()), ("late", late), ("wanted", job_context())] {
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
    gone.cancel.cancel();
    for (release, busy) in held {
        drop(release);
        busy.blocking_recv().unwrap().unwrap();
    }
    workers.close();
    drop(ran);
    assert_eq!(runs.iter().collect::<Vec<_>>(), ["wanted"; 6]);
    let answered = dropped.into_iter().filter_map(|answer| answer.blocking_recv().ok()).count();
    assert_eq!(answered, 6);
    // Two jobs in each pool, three steps each: counted by the job.
    assert_eq!(workers.meter.activity().dropped, 4);
}

#[test]
fn a_panicking_job_is_counted_and_its_worker_lives_on() {
    let workers = workers(1, 4);
    let panicking =
        workers.push(Pool::Search, job_context(), |_| -> Result<(), Error> { panic!("on purpose") }).unwrap();
    assert!(panicking.blocking_recv().is_err(), "it was answered");
    let next = workers.push(Pool::Search, job_context(), |_| Ok(3)).unwrap();
    assert_eq!(next.blocking_recv().unwrap(), Ok(3));
    assert_eq!(workers.meter.activity().panicked, 1);
    workers.close();
}

#[test]
fn closing_finishes_what_is_queued_and_takes_no_more() {
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
fn jobs_take_turns_step_by_step() {
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
    // A job with steps left goes back, whatever the bound.
    let (Work::Single(..), left) = queue.take() else { panic!("there was a step") };
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
fn expired_jobs_make_room() {
    let workers = workers(1, 3);
    let (release, busy) = occupy(&workers, Pool::Search);
    let gone = job_context();
    let dropped = workers.push(Pool::Search, gone.clone(), |_| Ok(())).unwrap();
    let kept: Vec<_> =
        (0..2).map(|n| workers.push(Pool::Search, job_context(), move |_| Ok(n)).unwrap()).collect();
    assert_eq!(
        workers.push(Pool::Search, job_context(), |_| Ok(())).unwrap_err().kind,
        ErrorKind::Overloaded
    );
    gone.cancel.cancel();
    let taken = workers.push(Pool::Search, job_context(), |_| Ok(2)).unwrap();
    assert!(dropped.blocking_recv().is_err(), "it ran");
    drop(release);
    busy.blocking_recv().unwrap().unwrap();
    let answers = kept.into_iter().chain([taken]).map(|answer| answer.blocking_recv().unwrap().unwrap());
    assert_eq!(answers.collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((workers.meter.activity().rejected, workers.meter.activity().dropped), (1, 1));
    workers.close();
}

/// What a single worker of `threads` makes of these jobs: the numbers done together, call by call.
fn batches(threads: usize, jobs: Vec<(JobContext, Vec<usize>)>) -> Vec<Vec<usize>> {
    let (queue, (done, all)) = (queue(100, threads), mpsc::channel());
    for (job_context, numbers) in jobs {
        let counted = |number| Step::Batchable(Counted { number, done: done.clone() });
        queue.push(job_context, numbers.into_iter().map(counted).collect()).0.unwrap();
    }
    drop(done);
    run_all(&queue);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut left = 0;
    for (number, together) in all {
        if left == 0 {
            batches.push(Vec::new());
            left = together;
        }
        batches.last_mut().unwrap().push(number);
        left -= 1;
    }
    batches
}

#[test]
fn those_that_wait_for_the_same_are_done_together_up_to_the_bound() {
    let single =
        |numbers: std::ops::Range<usize>| numbers.map(|number| (job_context(), vec![number])).collect();
    assert_eq!(batches(1, single(0..6)), [vec![0, 1, 2, 3], vec![4, 5]]);
    // One of two workers leaves half to the other.
    assert_eq!(batches(2, single(0..6)), [vec![0, 1, 2], vec![3, 4], vec![5]]);
}

#[test]
fn large_jobs_take_turns_in_company_too_and_who_has_gone_is_not_taken_along() {
    let gone = job_context();
    gone.cancel.cancel();
    let jobs = vec![
        (job_context(), vec![0, 1, 2]),
        (gone, vec![10]),
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
    let alone = |name| workers.push(Pool::Search, job_context(), move |_| Ok(name)).unwrap();
    let counted = |number| {
        let step = Step::Batchable(Counted { number, done: done.clone() });
        workers.push_steps(Pool::Search, job_context(), vec![step]).unwrap();
    };
    let first = alone("first");
    counted(1);
    let second = alone("second");
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
    let look = |pool| {
        let look = |_| Ok((getpriority_process(None).unwrap(), sched_getaffinity(None).unwrap().count()));
        workers.push(pool, job_context(), look).unwrap().blocking_recv().unwrap().unwrap()
    };
    let (direct, bulk) = (look(Pool::Search), look(Pool::Ingest));
    assert_eq!(direct.1, 1, "cores of a pinned worker");
    assert_eq!(bulk.1, sched_getaffinity(None).unwrap().count(), "cores of one that is not");
    assert_eq!(direct.0, getpriority_process(None).unwrap());
    assert!(bulk.0 > direct.0, "{} is not behind {}", bulk.0, direct.0);
    workers.close();
}

#[test]
fn a_stalled_queue_rejects_jobs_until_it_moves() {
    let queue: Queue<Counted> = Queue::new(100, Duration::ZERO, BatchPolicy { max: 1, threads: 1 });
    let job = || vec![Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)];
    assert_eq!(queue.push(job_context(), job()).0, Ok(1), "an empty queue does not stand");
    assert_eq!(queue.push(job_context(), job()).0, Err(Rejected::Full));
    assert!(matches!(queue.take().0, Work::Single(..)));
    assert_eq!(queue.push(job_context(), job()).0, Ok(1));
    // What nobody waits for any more is no sign of a queue that stands.
    let queue: Queue<Counted> = Queue::new(100, Duration::ZERO, BatchPolicy { max: 1, threads: 1 });
    let gone = job_context();
    assert_eq!(queue.push(gone.clone(), job()).0, Ok(1));
    gone.cancel.cancel();
    let (admitted, spent) = queue.push(job_context(), job());
    assert_eq!((admitted, spent.len()), (Ok(1), 1));
}

#[test]
fn a_queue_accepts_no_more_than_is_done_in_time_at_the_recent_pace() {
    let job = |steps: usize| {
        (0..steps).map(|_| Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)).collect()
    };
    let delay_max = Duration::from_secs(3600);
    let queue: Queue<Counted> = Queue::new(1000, delay_max, BatchPolicy { max: 1, threads: 2 });
    let fill = |steps| (0..).take_while(|_| queue.push(job_context(), job(steps)).0.is_ok()).count();
    for _ in 0..100 {
        queue.done(4, delay_max.mul_f64(1.1));
    }
    // Two threads that need a little more than a quarter of the delay_max for a step begin eight in it.
    assert_eq!((fill(1), queue.refuses()), (8, true));
    while queue.depth() > 0 {
        queue.take();
    }
    // What counts is steps: the third job would come after eight of them.
    assert_eq!((queue.refuses(), fill(4)), (false, 2));
    while queue.depth() > 0 {
        queue.take();
    }
    for _ in 0..100 {
        queue.done(1, delay_max * 5);
    }
    assert_eq!(fill(1), 1, "an empty queue takes whatever the pace");
}

#[test]
fn a_large_job_keeps_out_another_but_no_small_one() {
    let job = |steps: usize| {
        (0..steps).map(|_| Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)).collect()
    };
    let delay_max = Duration::from_secs(3600);
    let queue: Queue<Counted> = Queue::new(1000, delay_max, BatchPolicy { max: 1, threads: 2 });
    // Twenty steps of two threads take a little longer than the delay_max.
    (0..100).for_each(|_| queue.done(1, delay_max.mul_f64(0.101)));
    assert_eq!(queue.push(job_context(), job(100)).0, Ok(1));
    assert_eq!(queue.push(job_context(), job(100)).0, Err(Rejected::Full));
    // It takes key_locks with the large one, so that three steps are ahead of its last.
    assert_eq!((queue.refuses(), queue.push(job_context(), job(3)).0), (false, Ok(2)));
    // Two jobs are ahead of a single step, of each one step.
    let singles =
        (0..).take_while(|_| !queue.refuses() && queue.push(job_context(), job(1)).0.is_ok()).count();
    assert_eq!(singles, 18);
}

#[test]
fn steps_given_up_do_not_count() {
    let queue: Queue<Counted> = Queue::new(1000, Duration::from_secs(10), BatchPolicy { max: 1, threads: 1 });
    let job = || vec![Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)];
    (0..100).for_each(|_| queue.done(1, Duration::from_secs(4)));
    let gone = job_context();
    for _ in 0..3 {
        queue.push(gone.clone(), job()).0.unwrap();
    }
    assert!(queue.refuses());
    gone.cancel.cancel();
    let (admitted, spent) = queue.push(job_context(), job());
    assert_eq!((admitted, spent.len(), queue.refuses()), (Ok(1), 3, false));
}

#[test]
fn a_worker_that_hangs_is_told_of() {
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
fn in_a_flood_a_queue_takes_in_less_than_in_a_burst() {
    let delay_max = Duration::from_secs(3600);
    let queue: Queue<Counted> = Queue::new(1000, delay_max, BatchPolicy { max: 1, threads: 1 });
    (0..100).for_each(|_| queue.done(10, delay_max.mul_f64(1.01)));
    // Until somebody is refused; how many were taken in.
    let fill = || {
        let job = || vec![Step::Single(Box::new(|_| ()) as Box<dyn FnOnce(Duration) + Send>)];
        let taken = (0..).take_while(|_| queue.push(job_context(), job()).0.is_ok()).count();
        (0..taken).for_each(|_| drop(queue.take()));
        taken
    };
    assert_eq!(fill(), 10);
    let begun = Instant::now();
    while fill() != 4 {
        assert!(begun.elapsed() < Duration::from_secs(10), "a overload is a burst still");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fill(), 10, "it is over");
}
