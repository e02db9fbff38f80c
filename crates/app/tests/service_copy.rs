//! Collections copied from store to store: what arrives, what is computed on the way (nothing), what
//! becomes of an interrupted copy, and what is refused.

mod fixture;
#[path = "redis_cluster/mod.rs"]
mod redis_cluster;
#[path = "redis_stack/mod.rs"]
mod redis_stack;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fixture::{COLLECTION, Closed, Fixture, HandClock, article, cx, put, text};
use redis_cluster::{ClusterOptions, RedisCluster};
use redis_stack::{RedisStack, Reply};
use service::{
    Config, Copier, CopyFailure, CopyObserver, CopyPlan, CopyProgress, CopySummary, CopyVerification,
    Document, ErrorKind, FieldKind, Put, Quantization, RedisStore, Schema, Service, Store, Value, VectorType,
};
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

/// Listens, and cancels the copy after so many documents were written.
#[derive(Default)]
struct Listener {
    troubles: Mutex<Vec<CopyFailure>>,
    written: AtomicU64,
    cancel_after: Option<(u64, CancellationToken)>,
}

impl CopyObserver for Listener {
    fn progress(&self, progress: CopyProgress) {
        self.written.store(progress.written, Relaxed);
        if let Some((after, cancel)) = &self.cancel_after
            && progress.written >= *after
        {
            cancel.cancel();
        }
    }

    fn failure(&self, failure: CopyFailure) {
        self.troubles.lock().unwrap().push(failure);
    }
}

impl Listener {
    /// Keys and reasons, by key.
    fn troubles(&self) -> BTreeMap<String, String> {
        let troubles = self.troubles.lock().unwrap();
        troubles.iter().map(|trouble| (trouble.key.clone(), trouble.reason.clone())).collect()
    }
}

/// The stores of a test: a fixture's home, whose clock is the servers', and further data directories.
struct Stores {
    home: Closed,
    clock: Arc<HandClock>,
}

impl Stores {
    /// Fills the fixture's data directory.
    async fn filled(fill: impl AsyncFn(&Fixture)) -> Stores {
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
        self.at(redis.url())
    }

    fn at(&self, url: String) -> Config {
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
        listener: &Listener,
    ) -> (CopyPlan, CopySummary, CopyVerification) {
        let copying = self.open(from, to);
        let plan = copying.plan(&cx(), None).await.unwrap();
        let copied = copying.copy(&cx(), &plan, listener).await.unwrap();
        let verified = copying.verify(&cx(), &plan, listener).await.unwrap();
        (plan, copied, verified)
    }

    /// Copies everything, which has to arrive.
    async fn moved(&self, from: Config, to: Config) -> (CopyPlan, CopySummary) {
        let listener = Listener::default();
        let (plan, copied, verified) = self.copy(from, to, &listener).await;
        assert!(verified.is_equal(), "{verified:?} {:?}", listener.troubles());
        assert_eq!(listener.troubles(), BTreeMap::new());
        assert!(verified.documents > 0 && verified.digest != 0);
        for (name, from, to) in &verified.counts {
            assert_eq!(from, to, "{name}");
        }
        (plan, copied)
    }

    fn service(&self, config: Config) -> Service {
        Service::open_with_clock(config, self.clock.clone()).unwrap()
    }

    /// What a data directory holds of a collection: documents without their numbers, and the bits of
    /// their computed vectors with who made them.
    async fn content(&self, config: Config, collection: &str) -> BTreeMap<String, (Document, Vec<Computed>)> {
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
        let held = |document: Document| {
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
        let content = documents.into_iter().map(held).collect();
        engine.close();
        content
    }
}

/// Name of the field, who made the vector, its bits.
type Computed = (String, [u8; 16], Vec<u32>);

fn engine(data_dir: &Path, clock: Arc<HandClock>) -> engine::Engine {
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

/// Tags, numbers, bytes that are no text, ends, a second collection over some of the same keys, aliases.
async fn fill(house: &Fixture) {
    house.make(COLLECTION, article("a:")).await;
    let mut own = article("a:own/");
    own.fields.truncate(4);
    own.fields.push(service::FieldSchema {
        name: "place".to_owned(),
        kind: FieldKind::Vector(service::VectorSchema {
            vector_type: VectorType::Float16,
            dim: 3,
            embed: None,
            ..fixture::vector("")
        }),
    });
    house.make("own", Schema { ttl: Some(HOUR * 24), ..own }).await;
    house.service.put_alias(&cx(), "current", COLLECTION).await.unwrap();
    house.service.put_alias(&cx(), "mine", "own").await.unwrap();

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
        // In half precision: 1.0, 0.5 and a little more with every document.
        put.fields.push(("place".to_owned(), Value::Bytes(vec![0, 0x3c, 0, 0x38, id as u8, 0x34])));
        put
    }));
    puts.push(Put {
        fields: vec![("content".to_owned(), text("grüße ☃"))], ..put("ünï/☃ {tag}", &[])
    });
    for result in house.service.put(&cx(), COLLECTION, puts).await.unwrap() {
        result.unwrap();
    }
}

#[tokio::test]
async fn documents_go_to_a_redis_and_come_home_the_same() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::filled(fill).await;
    let (plan, copied) = stores.moved(stores.home(), stores.redis(&redis)).await;
    assert_eq!(plan.collections().collect::<Vec<_>>(), [COLLECTION, "own"]);
    assert_eq!(plan.notes(), &[] as &[String], "nothing is otherwise there");
    let expected = CopySummary { written: 451, skipped: Some(0), ..CopySummary::default() };
    assert_eq!(copied, expected, "a document in two collections is written once");

    let back = stores.directory("back");
    let (_, copied) = stores.moved(stores.redis(&redis), back.clone()).await;
    assert_eq!(copied, CopySummary { written: 451, ..CopySummary::default() });
    for collection in [COLLECTION, "own"] {
        let before = stores.content(stores.home(), collection).await;
        let after = stores.content(back.clone(), collection).await;
        assert_eq!(before.len(), if collection == "own" { 50 } else { 451 });
        assert!(before == after, "{collection}: what came home is not what left");
        let (document, _) = &before["a:own/7"];
        assert!(document.expires_at_ms.is_some(), "a default life is a life");
        for (key, (document, vectors)) in &before {
            let blob = |name: &str| redis.command(&["HGET", key, name]);
            for (field, _, bits) in vectors {
                let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
                assert_eq!(blob(field), Reply::Text(bytes), "{key}");
            }
            let end = document.expires_at_ms.map_or(-1, |end| end as i64);
            assert_eq!(redis.command(&["PEXPIRETIME", key]), Reply::Integer(end), "{key}");
        }
    }

    for config in [stores.redis(&redis), back] {
        let service = stores.service(config);
        let found = |name: &str| service.schema(name).unwrap();
        assert_eq!(found("current").prefixes, [b"a:"]);
        assert_eq!((found("mine").prefixes, found("mine").ttl), (vec![b"a:own/".to_vec()], Some(HOUR * 24)));
        let search = service::Search {
            collection: Some("current".to_owned()),
            exact: true,
            ..service::Search::text("garden password", 5)
        };
        let answer = service.search(&cx(), search).await.unwrap();
        assert!(answer.hits.iter().all(|hit| hit.distance.unwrap() < 0.5), "{answer:?}");
        assert_eq!(service.activity().embedded_texts, 1, "the query and nothing else was embedded");
        service.close();
    }
}

#[tokio::test]
async fn documents_go_from_directory_to_directory_and_again_without_being_written() {
    let stores = Stores::filled(fill).await;
    let other = stores.directory("other");
    let (_, copied) = stores.moved(stores.home(), other.clone()).await;
    assert_eq!(copied.written, 451);
    assert!(
        stores.content(stores.home(), COLLECTION).await == stores.content(other.clone(), COLLECTION).await
    );
    let (_, again) = stores.moved(stores.home(), other).await;
    assert_eq!(again, CopySummary { unchanged: 451, skipped: Some(0), ..CopySummary::default() });
}

#[tokio::test]
async fn documents_go_to_a_cluster_from_a_redis_and_come_home_the_same() {
    let (Some(redis), Some(cluster)) = (RedisStack::plain(), RedisCluster::start()) else { return };
    let stores = Stores::filled(fill).await;
    stores.moved(stores.home(), stores.redis(&redis)).await;
    let (_, copied) = stores.moved(stores.redis(&redis), stores.at(cluster.url())).await;
    assert_eq!(copied, CopySummary { written: 451, ..CopySummary::default() });
    let keys = |port: u16| match cluster.ask(port, &["DBSIZE"]) {
        Reply::Integer(keys) => keys,
        other => panic!("DBSIZE: {other:?}"),
    };
    let spread: Vec<i64> = cluster.primaries().into_iter().map(keys).collect();
    assert!(spread.iter().all(|keys| *keys > 100), "{spread:?}");
    let back = stores.directory("back");
    stores.moved(stores.at(cluster.url()), back.clone()).await;
    for collection in [COLLECTION, "own"] {
        let before = stores.content(stores.home(), collection).await;
        assert!(before == stores.content(back.clone(), collection).await, "{collection}");
    }
    let refused = Copier::open(stores.at(cluster.url()), stores.at(cluster.url())).unwrap_err();
    assert_eq!(refused.code, "same-store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_waits_while_a_cluster_fails_over() {
    let options = ClusterOptions { node_timeout_ms: 500, ..ClusterOptions::default() };
    let Some(mut cluster) = RedisCluster::with(options) else { return };
    let stores = Stores::filled(fill).await;
    let copying = stores.open(stores.home(), stores.at(cluster.url()));
    let plan = copying.plan(&cx(), None).await.unwrap();
    let primary = cluster.primaries()[0];
    cluster.kill(primary);
    let listener = Listener::default();
    let copied = copying.copy(&cx(), &plan, &listener).await.unwrap();
    // One that was not acknowledged may have been made all the same.
    let arrived = copied.written + copied.unchanged;
    assert_eq!((arrived, copied.rejected), (451, 0), "{:?}", listener.troubles());
    let verified = copying.verify(&cx(), &plan, &listener).await.unwrap();
    assert!(verified.is_equal(), "{verified:?} {:?}", listener.troubles());
}

#[tokio::test]
async fn a_copy_that_was_interrupted_goes_on() {
    const DOCUMENTS: u64 = 200;
    let Some(redis) = RedisStack::plain() else { return };
    // Four pages: when the first of two at once is done, and the copy cancelled, two have not begun.
    let stores = Stores::filled(async |house: &Fixture| {
        house.make(COLLECTION, article("a:")).await;
        let large = |id| {
            let mut put = put(&format!("{id}"), &[("title", "apple")]);
            put.fields.push(("large".to_owned(), Value::Bytes(vec![7; 64 << 10])));
            put
        };
        for result in house.service.put(&cx(), COLLECTION, (0..DOCUMENTS).map(large).collect()).await.unwrap()
        {
            result.unwrap();
        }
    })
    .await;
    let copying = stores.open(stores.home(), stores.redis(&redis));
    let plan = copying.plan(&cx(), None).await.unwrap();
    let context = cx();
    let listener = Listener { cancel_after: Some((1, context.cancel.clone())), ..Listener::default() };
    let stopped = copying.copy(&context, &plan, &listener).await.unwrap_err();
    assert_eq!(stopped.code, "cancelled");
    let written = listener.written.load(Relaxed);
    assert!((1..DOCUMENTS).contains(&written), "{written}");
    drop(copying);

    let (_, copied) = stores.moved(stores.home(), stores.redis(&redis)).await;
    assert!(copied.unchanged >= written && copied.written > 0, "{copied:?}");
    assert_eq!(copied.unchanged + copied.written, DOCUMENTS, "{copied:?}");
}

#[tokio::test]
async fn a_document_changed_meanwhile_is_found_and_named() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::filled(fill).await;
    let copying = stores.open(stores.home(), stores.redis(&redis));
    let plan = copying.plan(&cx(), None).await.unwrap();
    let listener = Listener::default();
    copying.copy(&cx(), &plan, &listener).await.unwrap();
    let blob = vec![0u8; 4 * fixture::tiny_model::DIM];
    assert_eq!(redis.command(&["HSET", "a:1", "title", "changed"]), Reply::Integer(0));
    assert_eq!(redis.command(&[b"HSET".as_slice(), b"a:2", b"embedding", &blob]), Reply::Integer(0));
    assert_eq!(redis.command(&["UNLINK", "a:4"]), Reply::Integer(1));
    assert_eq!(redis.command(&["PEXPIRE", "a:5", "9000000"]), Reply::Integer(1));
    assert_eq!(redis.command(&["HSET", "a:new", "title", "only there"]), Reply::Integer(1));

    let verified = copying.verify(&cx(), &plan, &listener).await.unwrap();
    assert!(!verified.is_equal() && verified.digest != verified.target_digest);
    assert_eq!((verified.documents, verified.missing, verified.different), (451, 1, 3));
    let troubles = listener.troubles();
    assert_eq!(troubles.keys().collect::<Vec<_>>(), ["a:1", "a:2", "a:4", "a:5"], "{troubles:?}");
    assert!(troubles["a:4"].contains("not in the target"), "{troubles:?}");
    assert!(troubles["a:5"].contains("ends"), "{troubles:?}");

    let listener = Listener::default();
    let copied = copying.copy(&cx(), &plan, &listener).await.unwrap();
    assert_eq!((copied.written, copied.unchanged), (4, 447), "the same again mends it");
    let verified = copying.verify(&cx(), &plan, &listener).await.unwrap();
    assert!(verified.is_equal(), "{:?}", listener.troubles());
    assert_eq!(verified.counts[0], (COLLECTION.to_owned(), 451, 452), "what only the target has stays");
}

#[tokio::test]
async fn a_document_that_is_not_whole_is_told_and_keeps_no_other_back() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::filled(fill).await;
    stores.moved(stores.home(), stores.redis(&redis)).await;
    redis.command(&["HSET", "a:bare", "title", "written by others"]);
    redis.command(&["HSET", "a:short", "title", "wrong", "embedding", "1234"]);
    redis.command(&["HSET", "a:number", "title", "wrong", "year", "soon"]);

    let listener = Listener::default();
    let (_, copied, verified) = stores.copy(stores.redis(&redis), stores.directory("back"), &listener).await;
    assert_eq!((copied.written, copied.rejected), (451, 3), "{:?}", listener.troubles());
    assert_eq!((verified.documents, verified.missing, verified.different), (454, 3, 0));
    let troubles = listener.troubles.lock().unwrap();
    let why = |key: &str| &troubles.iter().find(|trouble| trouble.key == key).unwrap().reason;
    assert!(why("a:bare").contains("has not been computed"), "{troubles:?}");
    assert!(why("a:short").contains("does not fit"), "{troubles:?}");
    assert!(why("a:number").contains("year"), "{troubles:?}");
}

#[tokio::test]
async fn a_vector_of_ones_own_arrives_though_a_redis_cannot_tell_it_from_a_computed_one() {
    let Some(redis) = RedisStack::plain() else { return };
    let own: Vec<f32> = (0..fixture::tiny_model::DIM).map(|value| value as f32 - 3.0).collect();
    let stores = Stores::filled(async |house: &Fixture| {
        house.make(COLLECTION, article("a:")).await;
        let mut put = put("own", &[("title", "apple")]);
        put.fields.push(("embedding".to_owned(), Value::Vector(own.clone())));
        house.put_one(put).await.unwrap();
    })
    .await;
    stores.moved(stores.home(), stores.redis(&redis)).await;
    let bytes: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(redis.command(&["HGET", "a:own", "embedding"]), Reply::Text(bytes));
    let back = stores.directory("back");
    stores.moved(stores.redis(&redis), back.clone()).await;
    let (document, vectors) = &stores.content(back, COLLECTION).await["a:own"];
    assert_eq!(document.field(b"embedding"), None);
    assert_eq!(vectors[0].2, own.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
}

#[tokio::test]
async fn vectors_of_two_models_are_not_put_under_one_note() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::filled(fill).await;
    stores.moved(stores.home(), stores.redis(&redis)).await;
    // The same documents in another home, whose model of that name is another.
    let fixture = Fixture::empty().close();
    fixture::tiny_model::write(&fixture.model_dir(), 2);
    let fixture = fixture.open();
    fixture.make(COLLECTION, article("a:")).await;
    fixture.put("1", "apple", "").await.unwrap();
    let other = fixture.close();
    let copying = stores.open(other.config.clone(), stores.redis(&redis));
    let clash = copying.plan(&cx(), None).await.unwrap_err();
    assert_eq!(clash.code, "model");
    assert!(clash.message.contains("\"embedding\""), "{clash}");
    drop(copying);

    // One directory keeps vectors of both, each with who made it; a Redis cannot.
    let both = stores.directory("both");
    stores.moved(stores.home(), both.clone()).await;
    let (_, copied, verified) = stores.copy(other.config.clone(), both.clone(), &Listener::default()).await;
    assert_eq!((copied.written, verified.is_equal()), (1, true));
    let Some(empty) = RedisStack::plain() else { return };
    let listener = Listener::default();
    let (_, copied, _) = stores.copy(both, stores.redis(&empty), &listener).await;
    assert_eq!((copied.written, copied.rejected), (450, 1), "{copied:?}");
    let troubles = listener.troubles.lock().unwrap();
    assert!(troubles[0].key == "a:1" && troubles[0].reason.contains("another model"), "{troubles:?}");
}

#[tokio::test]
async fn how_an_index_holds_vectors_is_the_targets_own_and_told() {
    let Some(redis) = RedisStack::plain() else { return };
    let codes = |quantization| {
        let mut schema = article("a:");
        let Some(FieldKind::Vector(vector)) = schema.fields.last_mut().map(|field| &mut field.kind) else {
            panic!("the last field is the vector")
        };
        vector.quantization = quantization;
        schema
    };
    let stores = Stores::filled(async |house: &Fixture| {
        house.make(COLLECTION, codes(Quantization::Int8)).await;
        house.put("1", "apple", "").await.unwrap();
    })
    .await;
    let (plan, _) = stores.moved(stores.home(), stores.redis(&redis)).await;
    assert!(plan.notes()[0].contains("quantization none"), "{:?}", plan.notes());
    let back = stores.directory("back");
    let (plan, _) = stores.moved(stores.redis(&redis), back.clone()).await;
    assert!(plan.notes()[0].contains("quantization int8"), "{:?}", plan.notes());
    assert_eq!(stores.service(back.clone()).schema(COLLECTION).unwrap(), codes(Quantization::Int8));
    // A collection that stands there, the same but for that, is filled as it is.
    let (plan, copied) = stores.moved(stores.home(), back).await;
    assert_eq!((plan.notes().len(), copied.unchanged), (0, 1));
}

#[tokio::test]
async fn a_collection_is_copied_alone() {
    let stores = Stores::filled(fill).await;
    let copying = stores.open(stores.home(), stores.directory("part"));
    let listener = Listener::default();
    let plan = copying.plan(&cx(), Some(&["mine".to_owned(), "own".to_owned()])).await.unwrap();
    let copied = copying.copy(&cx(), &plan, &listener).await.unwrap();
    assert_eq!(copied, CopySummary { written: 50, ..CopySummary::default() });
    assert!(copying.verify(&cx(), &plan, &listener).await.unwrap().is_equal());
    let missing = copying.plan(&cx(), Some(&["nowhere".to_owned()])).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert!(missing.message.contains("articles, own"), "{missing}");
    drop(copying);
    let service = stores.service(stores.directory("part"));
    assert_eq!(service.collections(&cx()).await.unwrap().len(), 1);
    service.close();
}

#[tokio::test]
async fn stores_that_do_not_go_together_are_refused_before_anything_is_written() {
    let Some(redis) = RedisStack::plain() else { return };
    let stores = Stores::filled(fill).await;
    let refused =
        |from: Config, to: Config| Copier::open_with_clock(from, to, stores.clock.clone()).unwrap_err();
    assert_eq!(refused(stores.home(), stores.home()).code, "same-store");
    let linked = stores.directory("link");
    std::os::unix::fs::symlink(&stores.home().data_dir, &linked.data_dir).unwrap();
    assert_eq!(refused(stores.home(), linked).code, "same-store");
    let by_another_name = RedisStore::new(redis.url().replace("127.0.0.1", "localhost"));
    let localhost = Config { store: Store::Redis(by_another_name), ..stores.home() };
    assert_eq!(refused(stores.redis(&redis), localhost).code, "same-store");
    assert_eq!(refused(stores.directory("nowhere"), stores.home()).code, "source-not-found");
    assert!(!stores.directory("nowhere").data_dir.exists());
    let service = stores.service(stores.home());
    assert_eq!(refused(stores.home(), stores.directory("other")).code, "data-locked");
    service.close();
    drop(service);

    let other = stores.directory("other");
    let service = stores.service(other.clone());
    let (made, _) = service.put_collection(&cx(), "own", article("other:"), false).await.unwrap();
    service.close();
    drop(service);
    let copying = stores.open(stores.home(), other.clone());
    let clash = copying.plan(&cx(), None).await.unwrap_err();
    assert_eq!(clash.code, "collection-exists");
    assert!(clash.message.contains("\"own\"") && clash.message.contains("prefixes"), "{clash}");
    drop(copying);
    let service = stores.service(other);
    let collections = service.collections(&cx()).await.unwrap();
    assert_eq!(collections, [made], "nothing was made");
    service.put_alias(&cx(), "current", "own").await.unwrap();
    service.close();
    drop(service);
    let copying = stores.open(stores.home(), stores.directory("other"));
    let clash = copying.plan(&cx(), Some(&[COLLECTION.to_owned()])).await.unwrap_err();
    assert_eq!(clash.code, "name-taken");
    assert!(clash.message.contains("\"current\""), "{clash}");
}
