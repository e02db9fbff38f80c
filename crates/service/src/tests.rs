//! Tests of the service under load that need access to its internals.

use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::mpsc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use testing::tiny_model;
use tokio_util::sync::CancellationToken;

use super::{
    pool::Pool,
    workers::{JobContext, Pending},
    *,
};

mod changing;
mod keyspace;

/// A service with one worker, a queue of two jobs, and one document.
async fn service(dir: &Path) -> Service {
    service_with(dir, |_| {}).await
}

/// [`service`] with a modified configuration.
async fn service_with(dir: &Path, change: impl FnOnce(&mut Config)) -> Service {
    let service = Service::open(config(dir, change)).unwrap();
    service.put_collection(&cx(), "articles", schema(), false).await.unwrap();
    put(&service, "1", "apple").await.unwrap();
    service
}

fn config(dir: &Path, change: impl FnOnce(&mut Config)) -> Config {
    tiny_model::write(&dir.join("models/tiny"), 1);
    let mut config = Config {
        store: Store::Directory,
        data_dir: dir.join("data"),
        models_dir: dir.join("models"),
        workers: 1,
        queue_wait: Duration::from_secs(60),
        queue_max: 2,
        timeout: Duration::from_secs(600),
        cpu_level: None,
        query_compute: None,
        document_compute: None,
        cache_bytes: 1 << 20,
        query_cache_bytes: 1 << 20,
        pin_workers: false,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        durability: Durability::Always,
        tail_max: 1000,
        index_threads: 1,
    };
    change(&mut config);
    config
}

/// The article schema with the tiny model.
fn schema() -> Schema {
    let mut schema = article_schema("a:", &[], &[]);
    for field in &mut schema.fields {
        if let FieldKind::Vector(vector) = &mut field.kind {
            vector.dim = tiny_model::DIM;
            vector.embed.as_mut().unwrap().model = "tiny".to_owned();
        }
    }
    schema
}

fn cx() -> Context {
    Context::local()
}

async fn put(service: &Service, id: &str, title: &str) -> Result<PutResult, Error> {
    put_in(service, "articles", id, title).await
}

async fn put_in(service: &Service, collection: &str, id: &str, title: &str) -> Result<PutResult, Error> {
    let fields = vec![("title".to_owned(), Value::Bytes(title.as_bytes().to_vec()))];
    let put = Put { id: id.to_owned(), fields, ttl: None, expected: Expected::Any };
    service.put(&cx(), collection, vec![put]).await?.pop().unwrap()
}

/// Keeps the search worker busy until the sender is dropped.
fn occupy(service: &Service) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    drop(queue(service, move || {
        started.send(()).unwrap();
        let _ = released.recv();
    }));
    has_started.recv().unwrap();
    release
}

fn queue(service: &Service, work: impl FnOnce() + Send + 'static) -> Pending<()> {
    let job_context =
        JobContext { deadline: Instant::now() + Duration::from_secs(600), cancel: CancellationToken::new() };
    let work = move |_| {
        work();
        Ok(())
    };
    service.shared().workers.push(Pool::Search, job_context, work).unwrap()
}

/// Polls a future once, which is enough for it to queue its job.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_full_queue_rejects_calls_immediately() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let release = occupy(&service);
    let cx = cx();
    let mut waiting: Vec<_> =
        (0..2).map(|_| Box::pin(service.search(&cx, SearchRequest::text("apple", 1)))).collect();
    for search in &mut waiting {
        assert!(!service.rejects_searches(), "the queue is not full yet");
        assert!(poll_once(search.as_mut()).is_pending());
    }
    // The only worker is busy, so the calls below fail before they are queued.
    assert!(service.rejects_searches());
    let rejected = service.search(&cx, SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((rejected.kind, rejected.code), (ErrorKind::Overloaded, "overloaded"));
    let rejected = service.get(&cx, "articles", "1").await.unwrap_err();
    assert_eq!(rejected.kind, ErrorKind::Overloaded);
    assert_eq!(service.activity().rejected, 3);
    drop(release);
    for search in waiting {
        assert_eq!(search.await.unwrap().hits.len(), 1);
    }
}

#[tokio::test]
async fn cancelled_and_dropped_calls_are_not_executed() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let before = service.activity();
    let release = occupy(&service);
    let cancel = CancellationToken::new();
    let cancellable = Context { cancel: cancel.clone(), ..cx() };
    {
        // One call is cancelled through its token, the other by dropping its future.
        let mut cancelled = pin!(service.search(&cancellable, SearchRequest::text("apple", 1)));
        assert!(poll_once(cancelled.as_mut()).is_pending());
        let cx = cx();
        let mut dropped = Box::pin(service.search(&cx, SearchRequest::text("apple", 1)));
        assert!(poll_once(dropped.as_mut()).is_pending());
        drop(dropped);
        cancel.cancel();
        assert_eq!(cancelled.await.unwrap_err().code, "cancelled");
    }
    drop(release);
    assert_eq!(service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap().hits.len(), 1);
    let after = service.activity();
    assert_eq!(after.dropped, before.dropped + 2);
    assert_eq!(after.embedded_texts, before.embedded_texts + 1);
}

#[tokio::test]
async fn calls_past_their_deadline_are_not_executed() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let before = service.activity();
    let release = occupy(&service);
    let soon = Context { deadline: Some(Instant::now() + Duration::from_millis(20)), ..cx() };
    let late = service.search(&soon, SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((late.kind, late.code), (ErrorKind::Unavailable, "deadline"));
    drop(release);
    service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap();
    let after = service.activity();
    assert_eq!(after.dropped, before.dropped + 1);
    assert_eq!(after.embedded_texts, before.embedded_texts + 1);
}

#[tokio::test]
async fn a_panic_fails_only_its_own_call() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let call = service.shared().begin(&cx()).unwrap();
    let result: Result<(), Error> = call.run(|| panic!("on purpose")).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Internal, "internal"));
    assert_eq!(service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap().hits.len(), 1);
    assert_eq!(service.activity().panicked, 1);
}

#[tokio::test]
async fn closing_completes_queued_calls() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let release = occupy(&service);
    let cx = cx();
    let mut queued = pin!(service.search(&cx, SearchRequest::text("apple", 1)));
    assert!(poll_once(queued.as_mut()).is_pending());
    drop(release);
    service.close();
    assert_eq!(queued.await.unwrap().hits.len(), 1);
    assert_eq!(service.search(&cx, SearchRequest::text("apple", 1)).await.unwrap_err().code, "closing");
}

#[tokio::test]
async fn a_repeated_query_is_not_embedded_again() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let before = service.activity();
    let first = service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap();
    // Spelled differently, but with the same tokens.
    let again = service.search(&cx(), SearchRequest::text(" Apple  ", 1)).await.unwrap();
    assert_eq!(first.hits, again.hits);
    let after = service.activity();
    assert_eq!(after.embedded_texts, before.embedded_texts + 1);
    assert_eq!(after.query_cache_hits, before.query_cache_hits + 1);
}

#[tokio::test]
async fn queued_searches_are_embedded_as_a_batch_with_each_distinct_text_once() {
    let dir = TempDir::new().unwrap();
    let service = service_with(dir.path(), |config| {
        config.query_compute = Some(ComputeType::F32);
        config.query_cache_bytes = 0;
        config.queue_max = 16;
    })
    .await;
    put(&service, "2", "plum pear").await.unwrap();
    let (cx, cancellable) = (cx(), Context { cancel: CancellationToken::new(), ..cx() });
    let mut expected = Vec::new();
    for text in ["apple", "a pear"] {
        expected.push(service.search(&cx, SearchRequest::text(text, 2)).await.unwrap().hits);
    }
    let before = service.activity();
    let release = occupy(&service);
    let malformed =
        SearchRequest { filter: Some("@nowhere:{x}".to_owned()), ..SearchRequest::text("a pear", 2) };
    let searches =
        [SearchRequest::text("apple", 2), SearchRequest::text("a pear", 2), SearchRequest::text("apple", 2)];
    let mut waiting: Vec<_> =
        searches.into_iter().map(|search| Box::pin(service.search(&cx, search))).collect();
    let mut cancelled = Box::pin(service.search(&cancellable, SearchRequest::text("plum", 2)));
    for search in waiting.iter_mut().chain([&mut cancelled]) {
        assert!(poll_once(search.as_mut()).is_pending());
    }
    // An invalid request is rejected before it is queued.
    let Poll::Ready(rejected) = poll_once(Box::pin(service.search(&cx, malformed)).as_mut()) else {
        panic!("the search with a malformed filter was queued")
    };
    assert_eq!(rejected.unwrap_err().kind, ErrorKind::Invalid);
    cancellable.cancel.cancel();
    assert_eq!(cancelled.await.unwrap_err().code, "cancelled");
    drop(release);
    let mut answers = Vec::new();
    for search in waiting {
        answers.push(search.await);
    }
    for (answer, query) in [(0, 0), (1, 1), (2, 0)] {
        assert_eq!(answers[answer].as_ref().unwrap().hits, expected[query]);
    }
    let after = service.activity();
    assert_eq!(after.embedded_texts - before.embedded_texts, 2);
    service.close();
    assert_eq!(service.activity().dropped - before.dropped, 1);
}

#[tokio::test]
async fn the_service_is_not_ready_while_all_workers_of_a_pool_are_stuck() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let release = occupy(&service);
    assert!(service.readiness().ready, "the job has just started");
    let readiness = service.shared().readiness(Duration::ZERO);
    assert!(!readiness.ready);
    assert!(readiness.notes[0].starts_with("1 of 1 search workers are stuck"), "{:?}", readiness.notes);
    // Collections can still be listed.
    assert_eq!(service.collections(&cx()).await.unwrap().len(), 1);
    drop(release);
}
