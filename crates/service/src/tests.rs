//! The service under pressure: what takes a view of its insides to bring about.

use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::mpsc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    pool::Pool,
    workers::{JobContext, Pending},
    *,
};

#[path = "../../app/tests/tiny_model/mod.rs"]
mod tiny_model;

mod changing;
mod keyspace;

/// A service with one worker, a queue of two jobs, and one document.
async fn service(dir: &Path) -> Service {
    service_with(dir, |_| {}).await
}

/// [`service`], changed.
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

/// Articles, embedded by the tiny model.
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

/// Keeps the worker busy until the sender is dropped.
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

/// Polls a future once: enough to queue what it queues.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_full_queue_is_told_at_once() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let release = occupy(&service);
    let cx = cx();
    let mut waiting: Vec<_> =
        (0..2).map(|_| Box::pin(service.search(&cx, SearchRequest::text("apple", 1)))).collect();
    for search in &mut waiting {
        assert!(!service.refuses_searches(), "there is room");
        assert!(poll_once(search.as_mut()).is_pending());
    }
    // The one worker is held: an answer can only come from the door.
    assert!(service.refuses_searches());
    let refused = service.search(&cx, SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((refused.kind, refused.code), (ErrorKind::Overloaded, "overloaded"));
    let refused = service.get(&cx, "articles", "1").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Overloaded);
    assert_eq!(service.activity().rejected, 3);
    drop(release);
    for search in waiting {
        assert_eq!(search.await.unwrap().hits.len(), 1);
    }
}

#[tokio::test]
async fn a_call_nobody_waits_for_costs_nothing() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let before = service.activity();
    let release = occupy(&service);
    let cancel = CancellationToken::new();
    let gone = Context { cancel: cancel.clone(), ..cx() };
    {
        // One caller says that it has gone, another is just dropped.
        let mut cancelled = pin!(service.search(&gone, SearchRequest::text("apple", 1)));
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
async fn a_call_past_its_deadline_costs_nothing() {
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
async fn a_panic_is_one_callers_and_the_service_goes_on() {
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
async fn closing_answers_what_was_queued_before() {
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
async fn a_query_asked_before_is_not_embedded_again() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let before = service.activity();
    let first = service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap();
    // Spelt otherwise, but the same to the model.
    let again = service.search(&cx(), SearchRequest::text(" Apple  ", 1)).await.unwrap();
    assert_eq!(first.hits, again.hits);
    let after = service.activity();
    assert_eq!(after.embedded_texts, before.embedded_texts + 1);
    assert_eq!(after.query_cache_hits, before.query_cache_hits + 1);
}

#[tokio::test]
async fn waiting_searches_are_embedded_together_and_each_distinct_text_once() {
    let dir = TempDir::new().unwrap();
    let service = service_with(dir.path(), |config| {
        config.query_compute = Some(ComputeType::F32);
        config.query_cache_bytes = 0;
        config.queue_max = 16;
    })
    .await;
    put(&service, "2", "plum pear").await.unwrap();
    let (cx, gone) = (cx(), Context { cancel: CancellationToken::new(), ..cx() });
    let mut alone = Vec::new();
    for text in ["apple", "a pear"] {
        alone.push(service.search(&cx, SearchRequest::text(text, 2)).await.unwrap().hits);
    }
    let before = service.activity();
    let release = occupy(&service);
    let wrong = SearchRequest { filter: Some("@nowhere:{x}".to_owned()), ..SearchRequest::text("a pear", 2) };
    let searches =
        [SearchRequest::text("apple", 2), SearchRequest::text("a pear", 2), SearchRequest::text("apple", 2)];
    let mut waiting: Vec<_> =
        searches.into_iter().map(|search| Box::pin(service.search(&cx, search))).collect();
    let mut given_up = Box::pin(service.search(&gone, SearchRequest::text("plum", 2)));
    for search in waiting.iter_mut().chain([&mut given_up]) {
        assert!(poll_once(search.as_mut()).is_pending());
    }
    // What is wrong with a request is reported before anything is queued.
    let Poll::Ready(rejected) = poll_once(Box::pin(service.search(&cx, wrong)).as_mut()) else {
        panic!("a malformed filter waits for a worker")
    };
    assert_eq!(rejected.unwrap_err().kind, ErrorKind::Invalid);
    gone.cancel.cancel();
    assert_eq!(given_up.await.unwrap_err().code, "cancelled");
    drop(release);
    let mut answers = Vec::new();
    for search in waiting {
        answers.push(search.await);
    }
    for (answer, same) in [(0, 0), (1, 1), (2, 0)] {
        assert_eq!(answers[answer].as_ref().unwrap().hits, alone[same]);
    }
    let after = service.activity();
    assert_eq!(after.embedded_texts - before.embedded_texts, 2);
    service.close();
    assert_eq!(service.activity().dropped - before.dropped, 1);
}

#[tokio::test]
async fn a_pool_whose_workers_all_hang_makes_the_service_not_ready() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let release = occupy(&service);
    assert!(service.readiness().ready, "it has only begun");
    let readiness = service.shared().readiness(Duration::ZERO);
    assert!(!readiness.ready);
    assert!(readiness.notes[0].starts_with("1 of 1 search workers are stuck"), "{:?}", readiness.notes);
    // Collections can still be looked at.
    assert_eq!(service.collections(&cx()).await.unwrap().len(), 1);
    drop(release);
}
