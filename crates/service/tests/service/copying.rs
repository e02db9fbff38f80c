//! Copying collections between stores: what is copied, that nothing is embedded, resuming an
//! interrupted copy, and rejected copies.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use service::{
    Config, Copier, CopyFailure, CopyObserver, CopyPlan, CopyProgress, CopySummary, CopyVerification,
    Document, ErrorKind, FieldKind, Put, Quantization, RedisStore, Schema, Service, Store, Value, VectorType,
};
use testing::{
    redis_cluster::{ClusterOptions, RedisCluster},
    redis_stack::{RedisStack, Reply},
    tiny_model,
};
use tokio_util::sync::CancellationToken;

use crate::fixture::{self, COLLECTION, ClosedFixture, Fixture, ManualClock, article, cx, put, text};

const HOUR: Duration = Duration::from_secs(3600);

/// Records failures, and cancels the copy after a number of written documents.
#[derive(Default)]
struct RecordingObserver {
    failures: Mutex<Vec<CopyFailure>>,
    written: AtomicU64,
    cancel_after: Option<(u64, CancellationToken)>,
}

impl CopyObserver for RecordingObserver {
    fn progress(&self, progress: CopyProgress) {
        self.written.store(progress.written, Relaxed);
        if let Some((after, cancel)) = &self.cancel_after
            && progress.written >= *after
        {
            cancel.cancel();
        }
    }

    fn failure(&self, failure: CopyFailure) {
        self.failures.lock().unwrap().push(failure);
    }
}

impl RecordingObserver {
    /// Keys and reasons, by key.
    fn failures(&self) -> BTreeMap<String, String> {
        let failures = self.failures.lock().unwrap();
        failures.iter().map(|failure| (failure.key.clone(), failure.reason.clone())).collect()
    }
}

/// The stores of a test: the fixture's data directory, further directories, and Redis servers. The
/// clock is set to the real time, which Redis uses.
struct Stores {
    home: ClosedFixture,
    clock: Arc<ManualClock>,
}

impl Stores {
    /// Fills the fixture's data directory.
    async fn new(fill: impl AsyncFn(&Fixture)) -> Stores {
        let fixture = Fixture::empty();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        fixture.clock.advance(now - Duration::from_millis(1_700_000_000_000));
        fill(&fixture).await;
        let clock = fixture.clock.clone();
        Stores { home: fixture.close(), clock }
    }

    fn home(&self) -> Config {
        self.home.config.clone()
    }

    fn directory(&self, name: &str) -> Config {
        let config = self.home();
        Config { data_dir: config.data_dir.with_file_name(name), ..config }
    }

    fn redis(&self, redis: &RedisStack) -> Config {
        self.redis_at(redis.url())
    }

    fn redis_at(&self, url: String) -> Config {
        Config { store: Store::Redis(RedisStore::new(url)), ..self.home() }
    }

    fn open(&self, from: Config, to: Config) -> Copier {
        Copier::open_with_clock(from, to, self.clock.clone()).unwrap()
    }

    /// Copies everything and verifies it.
    async fn copy(
        &self,
        from: Config,
        to: Config,
        observer: &RecordingObserver,
    ) -> (CopyPlan, CopySummary, CopyVerification) {
        let copier = self.open(from, to);
        let plan = copier.plan(&cx(), None).await.unwrap();
        let copied = copier.copy(&cx(), &plan, observer).await.unwrap();
        let verified = copier.verify(&cx(), &plan, observer).await.unwrap();
        (plan, copied, verified)
    }

    /// Copies everything and asserts that the stores are equal.
    async fn copy_all(&self, from: Config, to: Config) -> (CopyPlan, CopySummary) {
        let observer = RecordingObserver::default();
        let (plan, copied, verified) = self.copy(from, to, &observer).await;
        assert!(verified.is_equal(), "{verified:?} {:?}", observer.failures());
        assert_eq!(observer.failures(), BTreeMap::new());
        assert!(verified.documents > 0 && verified.digest != 0);
        for (name, from, to) in &verified.counts {
            assert_eq!(from, to, "{name}");
        }
        (plan, copied)
    }

    fn service(&self, config: Config) -> Service {
        Service::open_with_clock(config, self.clock.clone()).unwrap()
    }

    /// The content of a collection in a data directory: documents without sequence numbers, and the
    /// bits of their computed vectors with the model's fingerprint.
    async fn content(
        &self,
        config: Config,
        collection: &str,
    ) -> BTreeMap<String, (Document, Vec<ComputedBits>)> {
        let service = self.service(config.clone());
        let mut documents = Vec::new();
        let mut after = None;
        loop {
            let page = service.scroll(&cx(), collection, None, after.as_deref(), 100).await.unwrap();
            documents.extend(page.documents);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        service.close();
        drop(service);
        let engine = engine(&config.data_dir, self.clock.clone());
        let with_vectors = |document: Document| {
            let computed = |(field, vector): (String, engine::ComputedVector)| {
                (field, vector.model, vector.values.iter().map(|value| value.to_bits()).collect())
            };
            let vectors = engine.vectors(collection, &document.key).unwrap();
            let mut fields = document.fields;
            fields.sort_by(|one, other| one.name.cmp(&other.name));
            let key = String::from_utf8(document.key.to_vec()).unwrap();
            (
                key,
                (
                    Document { seq: 0, fields, ..Document { fields: vec![], ..document } },
                    vectors.into_iter().map(computed).collect(),
                ),
            )
        };
        let content = documents.into_iter().map(with_vectors).collect();
        engine.close();
        content
    }
}

/// Field name, model fingerprint and bits of a computed vector.
type ComputedBits = (String, [u8; 16], Vec<u32>);

fn engine(data_dir: &Path, clock: Arc<ManualClock>) -> engine::Engine {
    engine::Engine::open(engine::Options {
        data_dir: data_dir.to_owned(),
        cpu: engine::Cpu::detect(),
        clock,
        cache_bytes: 16 << 20,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        verify_bytes_max: u64::MAX,
        durability: engine::Durability::Always,
        tail_max: 10_000,
        index_threads: 1,
        lower_priority: || {},
        on_read_only: |_| {},
    })
    .unwrap()
}

/// Tags, numbers, non-UTF-8 bytes, expiries, aliases, and a second collection over some of the same
/// keys.
async fn fill(fixture: &Fixture) {
    fixture.create(COLLECTION, article("a:")).await;
    let mut second = article("a:own/");
    second.fields.truncate(4);
    second.fields.push(service::FieldSchema {
        name: "place".to_owned(),
        kind: FieldKind::Vector(service::VectorSchema {
            vector_type: VectorType::Float16,
            dim: 3,
            embed: None,
            ..fixture::vector("")
        }),
    });
    fixture.create("own", Schema { ttl: Some(HOUR * 24), ..second }).await;
    fixture.service.put_alias(&cx(), "current", COLLECTION).await.unwrap();
    fixture.service.put_alias(&cx(), "mine", "own").await.unwrap();

    let words = ["apple", "router", "winter", "invoice", "password", "garden"];
    let mut puts: Vec<Put> = (0..400)
        .map(|id| {
            let title = format!("{} {}", words[id % 6], words[id % 5]);
            let mut put = put(&format!("{id}"), &[("title", &title), ("tags", "red, blue")]);
            put.fields.push(("year".to_owned(), Value::Number(1900.0 + id as f64 / 8.0)));
            put.fields.push(("bytes".to_owned(), Value::Bytes(vec![0, 255, id as u8, b'\r', b'\n'])));
            put.ttl = id.is_multiple_of(3).then_some(HOUR + Duration::from_millis(id as u64));
            put
        })
        .collect();
    puts.extend((0..50).map(|id| {
        let mut put = put(&format!("own/{id}"), &[("title", words[id % 6])]);
        // In half precision: 1.0, 0.5, and a value that grows with the id.
        put.fields.push(("place".to_owned(), Value::Bytes(vec![0, 0x3c, 0, 0x38, id as u8, 0x34])));
        put
    }));
    puts.push(Put {
        fields: vec![("content".to_owned(), text("grüße ☃"))], ..put("ünï/☃ {tag}", &[])
    });
    for result in fixture.service.put(&cx(), COLLECTION, puts).await.unwrap() {
        result.unwrap();
    }
}

#[tokio::test]
async fn documents_survive_a_round_trip_through_redis() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::new(fill).await;
    let (plan, copied) = stores.copy_all(stores.home(), stores.redis(&redis)).await;
    assert_eq!(plan.collections().collect::<Vec<_>>(), [COLLECTION, "own"]);
    assert_eq!(plan.notes(), &[] as &[String], "nothing differs in the target");
    let expected = CopySummary { written: 451, skipped: Some(0), ..CopySummary::default() };
    assert_eq!(copied, expected, "a document in two collections is written once");

    let back = stores.directory("back");
    let (_, copied) = stores.copy_all(stores.redis(&redis), back.clone()).await;
    assert_eq!(copied, CopySummary { written: 451, ..CopySummary::default() });
    for collection in [COLLECTION, "own"] {
        let before = stores.content(stores.home(), collection).await;
        let after = stores.content(back.clone(), collection).await;
        assert_eq!(before.len(), if collection == "own" { 50 } else { 451 });
        assert!(before == after, "{collection}: the copy differs from the original");
        let (document, _) = &before["a:own/7"];
        assert!(document.expires_at_ms.is_some(), "the default expiry applies");
        for (key, (document, vectors)) in &before {
            let blob = |name: &str| redis.command(&["HGET", key, name]);
            for (field, _, bits) in vectors {
                let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
                assert_eq!(blob(field), Reply::Text(bytes), "{key}");
            }
            let expires_at = document.expires_at_ms.map_or(-1, |ms| ms as i64);
            assert_eq!(redis.command(&["PEXPIRETIME", key]), Reply::Integer(expires_at), "{key}");
        }
    }

    for config in [stores.redis(&redis), back] {
        let service = stores.service(config);
        let schema = |name: &str| service.schema(name).unwrap();
        assert_eq!(schema("current").prefixes, [b"a:"]);
        assert_eq!(
            (schema("mine").prefixes, schema("mine").ttl),
            (vec![b"a:own/".to_vec()], Some(HOUR * 24))
        );
        let search = service::SearchRequest {
            collection: Some("current".to_owned()),
            exact: true,
            ..service::SearchRequest::text("garden password", 5)
        };
        let response = service.search(&cx(), search).await.unwrap();
        assert!(response.hits.iter().all(|hit| hit.distance.unwrap() < 0.5), "{response:?}");
        assert_eq!(service.activity().embedded_texts, 1, "the query and nothing else was embedded");
        service.close();
    }
}

#[tokio::test]
async fn repeating_a_copy_between_directories_writes_nothing() {
    let stores = Stores::new(fill).await;
    let other = stores.directory("other");
    let (_, copied) = stores.copy_all(stores.home(), other.clone()).await;
    assert_eq!(copied.written, 451);
    assert!(
        stores.content(stores.home(), COLLECTION).await == stores.content(other.clone(), COLLECTION).await
    );
    let (_, repeated) = stores.copy_all(stores.home(), other).await;
    assert_eq!(repeated, CopySummary { unchanged: 451, skipped: Some(0), ..CopySummary::default() });
}

#[tokio::test]
async fn documents_survive_a_round_trip_through_redis_and_a_cluster() {
    let (Some(redis), Some(cluster)) = (RedisStack::plain(), RedisCluster::start()) else { return };
    let stores = Stores::new(fill).await;
    stores.copy_all(stores.home(), stores.redis(&redis)).await;
    let (_, copied) = stores.copy_all(stores.redis(&redis), stores.redis_at(cluster.url())).await;
    assert_eq!(copied, CopySummary { written: 451, ..CopySummary::default() });
    let keys = |port: u16| match cluster.command(port, &["DBSIZE"]) {
        Reply::Integer(keys) => keys,
        other => panic!("DBSIZE: {other:?}"),
    };
    let keys_per_primary: Vec<i64> = cluster.primaries().into_iter().map(keys).collect();
    assert!(keys_per_primary.iter().all(|keys| *keys > 100), "{keys_per_primary:?}");
    let back = stores.directory("back");
    stores.copy_all(stores.redis_at(cluster.url()), back.clone()).await;
    for collection in [COLLECTION, "own"] {
        let before = stores.content(stores.home(), collection).await;
        assert!(before == stores.content(back.clone(), collection).await, "{collection}");
    }
    let error = Copier::open(stores.redis_at(cluster.url()), stores.redis_at(cluster.url())).unwrap_err();
    assert_eq!(error.code, "same-store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_waits_for_a_cluster_failover() {
    let options = ClusterOptions { node_timeout_ms: 500, ..ClusterOptions::default() };
    let Some(mut cluster) = RedisCluster::with(options) else { return };
    let stores = Stores::new(fill).await;
    let copier = stores.open(stores.home(), stores.redis_at(cluster.url()));
    let plan = copier.plan(&cx(), None).await.unwrap();
    let primary = cluster.primaries()[0];
    cluster.kill(primary);
    let observer = RecordingObserver::default();
    let copied = copier.copy(&cx(), &plan, &observer).await.unwrap();
    // A write without acknowledgement may have been applied and then counts as unchanged.
    let in_target = copied.written + copied.unchanged;
    assert_eq!((in_target, copied.rejected), (451, 0), "{:?}", observer.failures());
    let verified = copier.verify(&cx(), &plan, &observer).await.unwrap();
    assert!(verified.is_equal(), "{verified:?} {:?}", observer.failures());
}

#[tokio::test]
async fn an_interrupted_copy_resumes() {
    const DOCUMENTS: u64 = 200;
    let Some(redis) = RedisStack::plain() else { return };
    // Four pages, two of them written concurrently: when the first is done and the copy is cancelled,
    // two have not begun.
    let stores = Stores::new(async |fixture: &Fixture| {
        fixture.create(COLLECTION, article("a:")).await;
        let large = |id| {
            let mut put = put(&format!("{id}"), &[("title", "apple")]);
            put.fields.push(("large".to_owned(), Value::Bytes(vec![7; 64 << 10])));
            put
        };
        for result in
            fixture.service.put(&cx(), COLLECTION, (0..DOCUMENTS).map(large).collect()).await.unwrap()
        {
            result.unwrap();
        }
    })
    .await;
    let copier = stores.open(stores.home(), stores.redis(&redis));
    let plan = copier.plan(&cx(), None).await.unwrap();
    let context = cx();
    let observer =
        RecordingObserver { cancel_after: Some((1, context.cancel.clone())), ..RecordingObserver::default() };
    let stopped = copier.copy(&context, &plan, &observer).await.unwrap_err();
    assert_eq!(stopped.code, "cancelled");
    let written = observer.written.load(Relaxed);
    assert!((1..DOCUMENTS).contains(&written), "{written}");
    drop(copier);

    let (_, copied) = stores.copy_all(stores.home(), stores.redis(&redis)).await;
    assert!(copied.unchanged >= written && copied.written > 0, "{copied:?}");
    assert_eq!(copied.unchanged + copied.written, DOCUMENTS, "{copied:?}");
}

#[tokio::test]
async fn verify_reports_documents_changed_after_the_copy() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::new(fill).await;
    let copier = stores.open(stores.home(), stores.redis(&redis));
    let plan = copier.plan(&cx(), None).await.unwrap();
    let observer = RecordingObserver::default();
    copier.copy(&cx(), &plan, &observer).await.unwrap();
    let blob = vec![0u8; 4 * tiny_model::DIM];
    assert_eq!(redis.command(&["HSET", "a:1", "title", "changed"]), Reply::Integer(0));
    assert_eq!(redis.command(&[b"HSET".as_slice(), b"a:2", b"embedding", &blob]), Reply::Integer(0));
    assert_eq!(redis.command(&["UNLINK", "a:4"]), Reply::Integer(1));
    assert_eq!(redis.command(&["PEXPIRE", "a:5", "9000000"]), Reply::Integer(1));
    assert_eq!(redis.command(&["HSET", "a:new", "title", "only in the target"]), Reply::Integer(1));

    let verified = copier.verify(&cx(), &plan, &observer).await.unwrap();
    assert!(!verified.is_equal() && verified.digest != verified.target_digest);
    assert_eq!((verified.documents, verified.missing, verified.different), (451, 1, 3));
    let failures = observer.failures();
    assert_eq!(failures.keys().collect::<Vec<_>>(), ["a:1", "a:2", "a:4", "a:5"], "{failures:?}");
    assert!(failures["a:4"].contains("not in the target"), "{failures:?}");
    assert!(failures["a:5"].contains("expires"), "{failures:?}");

    let observer = RecordingObserver::default();
    let copied = copier.copy(&cx(), &plan, &observer).await.unwrap();
    assert_eq!((copied.written, copied.unchanged), (4, 447), "repeating the copy repairs it");
    let verified = copier.verify(&cx(), &plan, &observer).await.unwrap();
    assert!(verified.is_equal(), "{:?}", observer.failures());
    assert_eq!(
        verified.counts[0],
        (COLLECTION.to_owned(), 451, 452),
        "documents only in the target are kept"
    );
}

#[tokio::test]
async fn incomplete_documents_are_reported_and_the_others_copied() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::new(fill).await;
    stores.copy_all(stores.home(), stores.redis(&redis)).await;
    redis.command(&["HSET", "a:bare", "title", "written by another client"]);
    redis.command(&["HSET", "a:short", "title", "wrong", "embedding", "1234"]);
    redis.command(&["HSET", "a:number", "title", "wrong", "year", "soon"]);

    let observer = RecordingObserver::default();
    let (_, copied, verified) = stores.copy(stores.redis(&redis), stores.directory("back"), &observer).await;
    assert_eq!((copied.written, copied.rejected), (451, 3), "{:?}", observer.failures());
    assert_eq!((verified.documents, verified.missing, verified.different), (454, 3, 0));
    let failures = observer.failures.lock().unwrap();
    let reason = |key: &str| &failures.iter().find(|failure| failure.key == key).unwrap().reason;
    assert!(reason("a:bare").contains("has not been computed"), "{failures:?}");
    assert!(reason("a:short").contains("does not fit"), "{failures:?}");
    assert!(reason("a:number").contains("year"), "{failures:?}");
}

#[tokio::test]
async fn copies_a_vector_provided_by_the_caller_for_an_embedded_field() {
    let Some(redis) = RedisStack::plain() else { return };
    let vector: Vec<f32> = (0..tiny_model::DIM).map(|value| value as f32 - 3.0).collect();
    let stores = Stores::new(async |fixture: &Fixture| {
        fixture.create(COLLECTION, article("a:")).await;
        let mut put = put("own", &[("title", "apple")]);
        put.fields.push(("embedding".to_owned(), Value::Vector(vector.clone())));
        fixture.put_one(put).await.unwrap();
    })
    .await;
    stores.copy_all(stores.home(), stores.redis(&redis)).await;
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(redis.command(&["HGET", "a:own", "embedding"]), Reply::Text(bytes));
    let back = stores.directory("back");
    stores.copy_all(stores.redis(&redis), back.clone()).await;
    let (document, vectors) = &stores.content(back, COLLECTION).await["a:own"];
    assert_eq!(document.field(b"embedding"), None);
    assert_eq!(vectors[0].2, vector.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
}

#[tokio::test]
async fn rejects_vectors_of_two_models_in_one_redis_collection() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::new(fill).await;
    stores.copy_all(stores.home(), stores.redis(&redis)).await;
    // The same documents in another data directory, whose model of that name is a different one.
    let fixture = Fixture::empty().close();
    tiny_model::write(&fixture.model_dir(), 2);
    let fixture = fixture.open();
    fixture.create(COLLECTION, article("a:")).await;
    fixture.put("1", "apple", "").await.unwrap();
    let other = fixture.close();
    let copier = stores.open(other.config.clone(), stores.redis(&redis));
    let conflict = copier.plan(&cx(), None).await.unwrap_err();
    assert_eq!(conflict.code, "model");
    assert!(conflict.message.contains("\"embedding\""), "{conflict}");
    drop(copier);

    // A data directory stores the model per vector; Redis stores one per collection.
    let both = stores.directory("both");
    stores.copy_all(stores.home(), both.clone()).await;
    let (_, copied, verified) =
        stores.copy(other.config.clone(), both.clone(), &RecordingObserver::default()).await;
    assert_eq!((copied.written, verified.is_equal()), (1, true));
    let Some(empty) = RedisStack::plain() else { return };
    let observer = RecordingObserver::default();
    let (_, copied, _) = stores.copy(both, stores.redis(&empty), &observer).await;
    assert_eq!((copied.written, copied.rejected), (450, 1), "{copied:?}");
    let failures = observer.failures.lock().unwrap();
    assert!(failures[0].key == "a:1" && failures[0].reason.contains("another model"), "{failures:?}");
}

#[tokio::test]
async fn quantization_is_chosen_by_the_target_and_reported() {
    let Some(redis) = RedisStack::plain() else { return };
    let schema = |quantization| {
        let mut schema = article("a:");
        let Some(FieldKind::Vector(vector)) = schema.fields.last_mut().map(|field| &mut field.kind) else {
            panic!("the last field is the vector")
        };
        vector.quantization = quantization;
        schema
    };
    let stores = Stores::new(async |fixture: &Fixture| {
        fixture.create(COLLECTION, schema(Quantization::Int8)).await;
        fixture.put("1", "apple", "").await.unwrap();
    })
    .await;
    let (plan, _) = stores.copy_all(stores.home(), stores.redis(&redis)).await;
    assert!(plan.notes()[0].contains("quantization none"), "{:?}", plan.notes());
    let back = stores.directory("back");
    let (plan, _) = stores.copy_all(stores.redis(&redis), back.clone()).await;
    assert!(plan.notes()[0].contains("quantization int8"), "{:?}", plan.notes());
    assert_eq!(stores.service(back.clone()).schema(COLLECTION).unwrap(), schema(Quantization::Int8));
    // An existing collection keeps its quantization.
    let (plan, copied) = stores.copy_all(stores.home(), back).await;
    assert_eq!((plan.notes().len(), copied.unchanged), (0, 1));
}

#[tokio::test]
async fn copies_a_single_collection() {
    let stores = Stores::new(fill).await;
    let copier = stores.open(stores.home(), stores.directory("part"));
    let observer = RecordingObserver::default();
    let plan = copier.plan(&cx(), Some(&["mine".to_owned(), "own".to_owned()])).await.unwrap();
    let copied = copier.copy(&cx(), &plan, &observer).await.unwrap();
    assert_eq!(copied, CopySummary { written: 50, ..CopySummary::default() });
    assert!(copier.verify(&cx(), &plan, &observer).await.unwrap().is_equal());
    let missing = copier.plan(&cx(), Some(&["nowhere".to_owned()])).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert!(missing.message.contains("articles, own"), "{missing}");
    drop(copier);
    let service = stores.service(stores.directory("part"));
    assert_eq!(service.collections(&cx()).await.unwrap().len(), 1);
    service.close();
}

#[tokio::test]
async fn rejects_incompatible_stores_before_writing_anything() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::new(fill).await;
    let rejection =
        |from: Config, to: Config| Copier::open_with_clock(from, to, stores.clock.clone()).unwrap_err();
    assert_eq!(rejection(stores.home(), stores.home()).code, "same-store");
    let linked = stores.directory("link");
    std::os::unix::fs::symlink(&stores.home().data_dir, &linked.data_dir).unwrap();
    assert_eq!(rejection(stores.home(), linked).code, "same-store");
    let by_another_name = RedisStore::new(redis.url().replace("127.0.0.1", "localhost"));
    let localhost = Config { store: Store::Redis(by_another_name), ..stores.home() };
    assert_eq!(rejection(stores.redis(&redis), localhost).code, "same-store");
    assert_eq!(rejection(stores.directory("nowhere"), stores.home()).code, "source-not-found");
    assert!(!stores.directory("nowhere").data_dir.exists());
    let service = stores.service(stores.home());
    assert_eq!(rejection(stores.home(), stores.directory("other")).code, "data-locked");
    service.close();
    drop(service);

    let other = stores.directory("other");
    let service = stores.service(other.clone());
    let (created, _) = service.put_collection(&cx(), "own", article("other:"), false).await.unwrap();
    service.close();
    drop(service);
    let copier = stores.open(stores.home(), other.clone());
    let conflict = copier.plan(&cx(), None).await.unwrap_err();
    assert_eq!(conflict.code, "collection-exists");
    assert!(conflict.message.contains("\"own\"") && conflict.message.contains("prefixes"), "{conflict}");
    drop(copier);
    let service = stores.service(other);
    let collections = service.collections(&cx()).await.unwrap();
    assert_eq!(collections, [created], "nothing was created");
    service.put_alias(&cx(), "current", "own").await.unwrap();
    service.close();
    drop(service);
    let copier = stores.open(stores.home(), stores.directory("other"));
    let conflict = copier.plan(&cx(), Some(&[COLLECTION.to_owned()])).await.unwrap_err();
    assert_eq!(conflict.code, "name-taken");
    assert!(conflict.message.contains("\"current\""), "{conflict}");
}
