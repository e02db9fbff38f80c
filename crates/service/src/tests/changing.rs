//! Tests of calls during changes of collections and models.

use super::*;

/// A clock that, once armed, blocks the next admin thread that reads it: an operation on collections then stops halfway
/// while it holds the lock that excludes other such operations.
#[derive(Debug, Default)]
struct BlockingClock {
    armed: sync::AtomicBool,
    channels: sync::Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Clock for BlockingClock {
    fn now_ms(&self) -> u64 {
        let is_admin = std::thread::current().name().is_some_and(|name| name.starts_with("nearfield-admin"));
        if is_admin && self.armed.swap(false, sync::Ordering::AcqRel) {
            let (started, released) = self.channels.lock().take().unwrap();
            started.send(()).unwrap();
            let _ = released.recv();
        }
        SystemClock.now_ms()
    }
}

/// A service that is dropping the collection "doomed" and its documents, blocked until the sender is dropped.
async fn service_during_drop(dir: &Path) -> (Service, mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let clock = Arc::new(BlockingClock::default());
    let service = Service::open_with_clock(config(dir, |_| {}), clock.clone()).unwrap();
    service.put_collection(&cx(), "articles", schema(), false).await.unwrap();
    put(&service, "1", "apple").await.unwrap();
    let doomed = Schema { prefixes: vec![b"doomed:".to_vec()], ..schema() };
    service.put_collection(&cx(), "doomed", doomed, false).await.unwrap();
    put_in(&service, "doomed", "1", "plum").await.unwrap();
    // Without the backfill thread, only the test switches versions.
    service.inner.backfill.close();
    service.put_collection(&cx(), "articles", with_ttl(schema()), true).await.unwrap();

    let (release, released) = mpsc::channel();
    let (started, has_started) = mpsc::channel();
    *clock.channels.lock() = Some((started, released));
    clock.armed.store(true, sync::Ordering::Release);
    let dropping = {
        let service = service.clone();
        tokio::spawn(async move {
            service.drop_collection(&cx(), "doomed", DropMode::DeleteDocuments).await.unwrap();
        })
    };
    tokio::task::spawn_blocking(move || has_started.recv().unwrap()).await.unwrap();
    (service, release, dropping)
}

/// Another schema, for which no vector has to be computed.
fn with_ttl(mut schema: Schema) -> Schema {
    schema.ttl = Some(Duration::from_secs(3600));
    schema
}

fn embedding(schema: &mut Schema) -> &mut Embedding {
    let embedding = schema.fields.iter_mut().find_map(|field| match &mut field.kind {
        FieldKind::Vector(vector) => vector.embed.as_mut(),
        _ => None,
    });
    embedding.unwrap()
}

/// Waits until `done` returns true.
async fn until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "timed out");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_continue_while_a_switch_waits_for_a_drop() {
    let dir = TempDir::new().unwrap();
    let (service, release, dropping) = service_during_drop(dir.path()).await;
    let switching = {
        let shared = service.shared().clone();
        std::thread::spawn(move || shared.switch("articles").unwrap())
    };
    let apple =
        || SearchRequest { collection: Some("articles".to_owned()), ..SearchRequest::text("apple", 1) };
    // Long enough for the thread to reach the lock many times over.
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(200) {
        let context = Context { deadline: Some(Instant::now() + Duration::from_secs(20)), ..cx() };
        assert_eq!(service.search(&context, apple()).await.unwrap().hits.len(), 1);
    }
    assert!(!switching.is_finished(), "the switch did not wait for the drop");
    drop(release);
    dropping.await.unwrap();
    switching.join().unwrap();
    assert_eq!(service.schema("articles").unwrap(), with_ttl(schema()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_can_be_listed_while_a_change_waits_for_a_drop_whose_caller_disconnected() {
    let dir = TempDir::new().unwrap();
    let (service, release, dropping) = service_during_drop(dir.path()).await;
    dropping.abort();
    assert!(dropping.await.unwrap_err().is_cancelled());
    let cx = cx();
    let mut put_alias = pin!(service.put_alias(&cx, "texts", "articles"));
    assert!(poll_once(put_alias.as_mut()).is_pending());
    let soon = Context { deadline: Some(Instant::now() + Duration::from_secs(20)), ..cx.clone() };
    assert_eq!(service.collections(&soon).await.unwrap().len(), 2);
    drop(release);
    put_alias.await.unwrap();
    let collections = service.collections(&cx).await.unwrap();
    assert_eq!(collections.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["articles"]);
    assert_eq!(collections[0].aliases, ["texts"]);
}

#[tokio::test]
async fn readiness_and_metrics_forget_a_dropped_collection() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let shared = service.shared();
    let other = Schema { prefixes: vec![b"other:".to_vec()], ..schema() };
    service.put_collection(&cx(), "other", other, false).await.unwrap();
    service.inner.backfill.close();
    for name in ["articles", "other"] {
        shared.stale.lock().insert(name.to_owned());
        shared.backfill_errors.lock().insert(name.to_owned(), "a full queue".to_owned());
    }
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        ["articles", "other"].into_iter().for_each(|name| shared.meter.unembedded(name, 7));
        let embedded = shared.backend.backup_source().unwrap();
        embedded.drop_collection("articles", DropMode::KeepDocuments).unwrap();
        shared.refresh_catalog();
    });
    let notes = service.readiness().notes;
    let count = |name: &str| notes.iter().filter(|note| note.contains(name)).count();
    assert_eq!((count("articles"), count("other")), (0, 2), "{notes:?}");
    let metrics = recorder.handle().render();
    for line in ["{collection=\"articles\"} 0", "{collection=\"other\"} 7"] {
        assert!(metrics.contains(&format!("nearfield_unembedded_documents{line}")), "{line}: {metrics}");
    }
    service.drop_collection(&cx(), "other", DropMode::KeepDocuments).await.unwrap();
    assert!(service.readiness().ready);
}

/// A service with one document that was closed and opened again; `change` gets the model's directory in between.
async fn reopened(dir: &Path, change: impl FnOnce(&Path)) -> Service {
    let config = config(dir, |_| {});
    let service = Service::open(config.clone()).unwrap();
    service.put_collection(&cx(), "articles", schema(), false).await.unwrap();
    put(&service, "1", "apple").await.unwrap();
    service.close();
    drop(service);
    change(&config.models_dir.join("tiny"));
    Service::open(config).unwrap()
}

/// Waits until the document has the vector that the loaded model computes for its text.
async fn until_found_by_its_text(service: &Service) {
    let started = Instant::now();
    loop {
        let hits = service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap().hits;
        if hits[0].distance.unwrap().abs() < 1e-5 {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{hits:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn documents_are_embedded_again_when_another_model_is_installed_later() {
    let dir = TempDir::new().unwrap();
    let service = reopened(dir.path(), |model| std::fs::remove_dir_all(model).unwrap()).await;
    assert!(!service.readiness().ready, "its model is missing");
    tiny_model::write(&dir.path().join("models/tiny"), 2);
    until_found_by_its_text(&service).await;
    until(|| service.readiness().ready).await;
}

#[tokio::test]
async fn an_unreadable_model_is_reported_and_compared_once_it_loads() {
    let dir = TempDir::new().unwrap();
    let weights = dir.path().join("models/tiny/model.safetensors");
    let service = reopened(dir.path(), |_| std::fs::write(&weights, b"no weights").unwrap()).await;
    let is_reported = || {
        let notes = service.readiness().notes;
        notes.iter().any(|note| {
            note.contains("cannot embed its documents, will retry: model \"tiny\" cannot be loaded")
        })
    };
    until(is_reported).await;
    tiny_model::write(&dir.path().join("models/tiny"), 2);
    until_found_by_its_text(&service).await;
    until(|| !is_reported()).await;
}

#[tokio::test]
async fn a_search_planned_for_a_replaced_version_is_planned_again() {
    let dir = TempDir::new().unwrap();
    tiny_model::write(&dir.path().join("models/other"), 2);
    let service = service(dir.path()).await;
    let shared = service.shared();
    let request = SearchRequest::text("apple", 1);
    let plan = search::plan(&Arc::new(request.clone()), shared.resolve(None).unwrap()).unwrap();
    let mut other = schema();
    embedding(&mut other).model = "other".to_owned();
    service.put_collection(&cx(), "articles", other, true).await.unwrap();
    until(|| shared.catalog().resolve(None).unwrap().version.version == 2).await;
    let call = shared.begin(&cx()).unwrap();
    let outcomes = shared.backend.search(&call, &shared.models, &[Arc::new(plan)]).await.unwrap();
    assert!(matches!(outcomes.as_slice(), [Ok(None)]), "{outcomes:?}");
    let found = service.search(&cx(), request).await.unwrap();
    // The distance is 0 only if both texts were embedded by the same model.
    assert!(found.hits[0].distance.unwrap().abs() < 1e-5, "{:?}", found.hits);
}
