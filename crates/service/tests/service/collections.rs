//! Collections: creation, lookup, online rebuild and deletion, and the models they require.

use std::{fs, sync::Arc};

use engine::{ComputedVector, Engine, Op, Options};
use service::{
    Algorithm, Config, DropMode, ErrorKind, FieldKind, Outcome, Put, Schema, SearchRequest, Service,
    VectorSchema, VectorType,
};
use testing::tiny_model;

use crate::fixture::{self, COLLECTION, Fixture, article, cx, ids, patch, put, vector};

/// The schema with its vector field changed.
fn with_vector(mut schema: Schema, change: impl Fn(&mut VectorSchema)) -> Schema {
    for field in &mut schema.fields {
        if let FieldKind::Vector(vector) = &mut field.kind {
            change(vector);
        }
    }
    schema
}

fn title_only(prefix: &str) -> Schema {
    with_vector(article(prefix), |vector| vector.embed.as_mut().unwrap().fields = vec!["title".into()])
}

fn with_model(model: &str) -> Schema {
    with_vector(article("a:"), |field| *field = vector(model))
}

#[tokio::test]
async fn the_collection_may_be_omitted_if_there_is_only_one() {
    let fixture = Fixture::empty();
    let none = fixture.service.default_collection().unwrap_err();
    assert_eq!((none.kind, none.code), (ErrorKind::NotFound, "collection-not-found"));
    let none = fixture.service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!(none.code, "collection-not-found");

    fixture.create(COLLECTION, article("a:")).await;
    assert_eq!(fixture.service.default_collection().unwrap(), COLLECTION);
    fixture.create("books", article("b:")).await;
    let several = fixture.service.default_collection().unwrap_err();
    assert_eq!((several.kind, several.code), (ErrorKind::Invalid, "collection-ambiguous"));
    assert!(several.message.contains("articles, books"), "{several}");
    let unknown = fixture.service.collection(&cx(), "films").await.unwrap_err();
    assert_eq!((unknown.kind, unknown.code), (ErrorKind::NotFound, "collection-not-found"));
    assert!(unknown.message.contains("articles, books"), "{unknown}");

    fixture.service.drop_collection(&cx(), COLLECTION, DropMode::KeepDocuments).await.unwrap();
    assert_eq!(fixture.service.default_collection().unwrap(), "books");
}

#[tokio::test]
async fn accepts_the_same_schema_again_and_rejects_a_different_one() {
    let fixture = Fixture::new().await;
    let (info, created) =
        fixture.service.put_collection(&cx(), COLLECTION, article("a:"), false).await.unwrap();
    assert_eq!((info.name.as_str(), created), (COLLECTION, false));
    let other = fixture.service.put_collection(&cx(), COLLECTION, title_only("a:"), false).await.unwrap_err();
    assert_eq!(other.kind, ErrorKind::Conflict);
    let bad_name = fixture.service.put_collection(&cx(), "no/name", article("a:"), false).await.unwrap_err();
    assert_eq!(bad_name.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn one_of_two_concurrent_identical_calls_creates_the_collection() {
    let fixture = Fixture::empty();
    let cx = cx();
    let create = || fixture.service.put_collection(&cx, COLLECTION, article("a:"), false);
    let (one, other) = tokio::join!(create(), create());
    assert!(one.unwrap().1 != other.unwrap().1);
}

#[tokio::test]
async fn a_new_collection_indexes_existing_documents() {
    let fixture = Fixture::new().await;
    let puts = (0..700).map(|number| {
        let word = tiny_model::WORDS[number % 40];
        put(&number.to_string(), &[("title", word), ("content", &format!("{number}"))])
    });
    fixture.service.put(&cx(), COLLECTION, puts.collect()).await.unwrap();
    fixture.create("titles", title_only("a:")).await;
    fixture.wait_until_settled().await;
    let info = fixture.service.collection(&cx(), "titles").await.unwrap();
    assert_eq!((info.documents, info.vectors, info.unembedded), (700, 700, 0));
    let distance = fixture.distance_from("titles", "3", "cherry").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
    // From then on, both collections index the document.
    fixture.service.patch(&cx(), COLLECTION, patch("3", &[("title", "router")])).await.unwrap();
    let title = fixture.distance_from("titles", "3", "router").await.unwrap();
    let article = fixture.distance_from(COLLECTION, "3", "router 3").await.unwrap();
    assert!(title.abs() < 1e-5 && article.abs() < 1e-5, "{title} {article}");
}

#[tokio::test]
async fn rebuilds_a_collection_online_and_switches_to_the_new_version() {
    let fixture = Fixture::new().await;
    for (id, title, content) in [("1", "apple", "router cable"), ("2", "router", "apple pear")] {
        fixture.put(id, title, content).await.unwrap();
    }
    let before = fixture.service.collection(&cx(), COLLECTION).await.unwrap();
    let (_, created) =
        fixture.service.put_collection(&cx(), COLLECTION, title_only("a:"), true).await.unwrap();
    assert!(!created);
    // During the rebuild, either version may serve the search.
    assert_eq!(fixture.ids("apple", 9).await.len(), 2);
    fixture.put("3", "winter", "apple").await.unwrap();
    fixture.wait_until_settled().await;
    let after = fixture.service.collection(&cx(), COLLECTION).await.unwrap();
    assert_eq!(after.version.id, before.version.id);
    assert!(after.version.version > before.version.version);
    assert_eq!((after.documents, after.vectors), (3, 3));
    assert_eq!(after.schema, title_only("a:"));
    for (id, title) in [("1", "apple"), ("2", "router"), ("3", "winter")] {
        let distance = fixture.distance_from(COLLECTION, id, title).await.unwrap();
        assert!(distance.abs() < 1e-5, "{id}: {distance}");
    }
    let fixture = fixture.reopen();
    assert_eq!(fixture.put("1", "apple", "router cable").await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn names_and_aliases_resolve_to_the_same_documents() {
    let fixture = Fixture::new().await;
    fixture.put("1", "apple", "").await.unwrap();
    fixture.service.put_alias(&cx(), "kb", COLLECTION).await.unwrap();
    assert_eq!(fixture.service.get(&cx(), "kb", "1").await.unwrap(), fixture.get("1").await.unwrap());
    let search = SearchRequest { collection: Some("kb".into()), ..SearchRequest::text("apple", 1) };
    let response = fixture.service.search(&cx(), search).await.unwrap();
    assert_eq!((response.collection.as_str(), ids(&response)), (COLLECTION, vec!["1".to_owned()]));
    assert_eq!(fixture.service.default_collection().unwrap(), COLLECTION);
    // An operation that is hard to undo requires the collection name; an alias is rejected.
    let dropped = fixture.service.drop_collection(&cx(), "kb", DropMode::DeleteDocuments).await.unwrap_err();
    assert_eq!(dropped.kind, ErrorKind::Conflict);
    fixture.service.drop_alias(&cx(), "kb").await.unwrap();
    assert_eq!(fixture.service.get(&cx(), "kb", "1").await.unwrap_err().code, "collection-not-found");
    assert_eq!(fixture.service.drop_alias(&cx(), "kb").await.unwrap_err().kind, ErrorKind::NotFound);
    let nowhere = fixture.service.put_alias(&cx(), "kb", "nowhere").await.unwrap_err();
    assert_eq!(nowhere.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn dropping_a_collection_keeps_its_documents_unless_requested_otherwise() {
    let fixture = Fixture::new().await;
    fixture.put("1", "apple", "").await.unwrap();
    fixture.service.drop_collection(&cx(), COLLECTION, DropMode::KeepDocuments).await.unwrap();
    assert_eq!(fixture.service.stats(&cx()).await.unwrap().documents, 1);
    fixture.create(COLLECTION, article("a:")).await;
    fixture.wait_until_settled().await;
    assert_eq!(fixture.ids("apple", 9).await, ["1"]);
    fixture.service.drop_collection(&cx(), COLLECTION, DropMode::DeleteDocuments).await.unwrap();
    assert_eq!(fixture.service.stats(&cx()).await.unwrap().documents, 0);
}

#[tokio::test]
async fn creating_a_collection_rejects_an_incompatible_model() {
    let fixture = Fixture::empty();
    let rejection =
        async |schema| fixture.service.put_collection(&cx(), COLLECTION, schema, false).await.unwrap_err();
    let missing = rejection(with_model("absent")).await;
    assert_eq!((missing.kind, missing.code), (ErrorKind::Unavailable, "model-missing"));
    let dir = fixture.config.models_dir.join("absent");
    assert!(missing.message.contains(dir.to_str().unwrap()), "{missing}");
    assert!(missing.message.contains("nearfield model pull"), "{missing}");

    fs::create_dir(&dir).unwrap();
    let broken = rejection(with_model("absent")).await;
    assert_eq!((broken.kind, broken.code), (ErrorKind::Unavailable, "model-unreadable"));
    assert!(broken.message.contains("modules.json"), "{broken}");

    for name in ["../tiny", "/etc", "", ".."] {
        assert_eq!(rejection(with_model(name)).await.code, "model-name", "{name:?}");
    }
    let wrong_dim = rejection(with_vector(article("a:"), |vector| vector.dim = 384)).await;
    assert_eq!(
        (wrong_dim.kind, wrong_dim.code, wrong_dim.at.as_deref()),
        (ErrorKind::Invalid, "vector-dimensions", Some("embedding"))
    );
    assert!(wrong_dim.message.contains("384") && wrong_dim.message.contains("16"), "{wrong_dim}");
    let int8 = rejection(with_vector(article("a:"), |vector| vector.vector_type = VectorType::Int8)).await;
    assert_eq!((int8.kind, int8.code), (ErrorKind::Invalid, "vector-type"));
    assert!(fixture.service.collections(&cx()).await.unwrap().is_empty());
}

#[tokio::test]
async fn reports_a_missing_model_and_loads_it_once_installed() {
    let fixture = Fixture::new().await;
    fixture.put("1", "apple", "").await.unwrap();
    let closed = fixture.close();
    let moved = closed.config.models_dir.join("moved");
    fs::rename(closed.model_dir(), &moved).unwrap();
    let fixture = closed.open();
    let readiness = fixture.service.readiness();
    assert!(!readiness.ready);
    assert!(
        readiness.notes.iter().any(|note| note.contains("nearfield model pull")),
        "{:?}",
        readiness.notes
    );
    // Operations that need no model succeed.
    assert_eq!(fixture::field(&fixture.get("1").await.unwrap(), "title"), Some("apple"));
    let search = fixture.service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((search.kind, search.code), (ErrorKind::Unavailable, "model-missing"));
    assert_eq!(fixture.put("2", "pear", "").await.unwrap_err().code, "model-missing");

    fs::rename(&moved, fixture.model_dir()).unwrap();
    assert_eq!(fixture.ids("apple", 9).await, ["1"]);
    assert!(fixture.service.readiness().ready);
}

#[tokio::test]
async fn embeds_documents_without_vectors_at_the_next_start() {
    let fixture = Fixture::new().await;
    let closed = fixture.close();
    {
        let engine = engine(&closed.config);
        let schema = article("b:");
        let info = engine.create_collection("books", schema).unwrap();
        let fields = vec![engine::Field { name: (*b"title").into(), value: (*b"apple").into() }];
        let put = Op::Put {
            key: b"b:1".to_vec(),
            fields,
            expires_at_ms: None,
            vectors: vec![ComputedVector {
                collection: info.version,
                field: 4,
                passage: 0,
                model: [0; 16],
                values: vec![1.0; tiny_model::DIM],
            }],
            expected: engine::Expected::Any,
        };
        engine.write(vec![put]).pop().unwrap().unwrap();
        // The document is older than this collection, so it has no vector in it.
        engine.create_collection("titles", title_only("b:")).unwrap();
        assert_eq!(engine.collection("titles").unwrap().unembedded, 1);
        engine.close();
    }
    let fixture = closed.open();
    fixture.wait_until_settled().await;
    let distance = fixture.distance_from("titles", "1", "apple").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
}

#[tokio::test]
async fn reports_and_recomputes_vectors_of_another_model() {
    let fixture = Fixture::new().await;
    for (id, title) in [("1", "apple"), ("2", "router"), ("3", "winter")] {
        fixture.put(id, title, "").await.unwrap();
    }
    let closed = fixture.close();
    tiny_model::write(&closed.model_dir(), 2);
    let fixture = closed.open();
    fixture.wait_until_settled().await;
    for (id, title) in [("1", "apple"), ("2", "router"), ("3", "winter")] {
        let distance = fixture.distance_from(COLLECTION, id, title).await.unwrap();
        assert!(distance.abs() < 1e-5, "{id}: {distance}");
    }
    assert!(fixture.service.readiness().ready);
    assert_eq!(fixture.service.activity().embedded_texts, 3);
}

#[tokio::test]
async fn rejects_an_invalid_configuration_and_warns_about_an_unusual_one() {
    let fixture = Fixture::empty();
    for change in [
        |config: &mut Config| config.workers = 0,
        |config: &mut Config| config.queue_max = 0,
        |config: &mut Config| config.index_threads = 0,
    ] {
        let mut config = fixture::config(fixture.dir.path().join("other"));
        change(&mut config);
        assert_eq!(Service::open(config).unwrap_err().code, "config");
    }
    let mut config = fixture::config(fixture.dir.path().join("other"));
    config.workers = 2 * std::thread::available_parallelism().unwrap().get() + 1;
    let readiness = Service::open(config).unwrap().readiness();
    assert!(readiness.ready);
    assert!(readiness.notes.iter().any(|note| note.contains("workers")), "{:?}", readiness.notes);
}

#[tokio::test]
async fn a_data_directory_can_be_opened_only_once() {
    let fixture = Fixture::new().await;
    let error = Service::open(fixture.config.clone()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(fixture.config.data_dir.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn flat_and_hnsw_return_the_same_hits_in_a_small_collection() {
    let fixture = Fixture::new().await;
    fixture.create("flat", with_vector(article("f:"), |vector| vector.algorithm = Algorithm::Flat)).await;
    let words = tiny_model::WORDS;
    for collection in [COLLECTION, "flat"] {
        let puts: Vec<Put> = (0..words.len())
            .map(|number| {
                put(&number.to_string(), &[("title", words[number]), ("content", words[(number * 7) % 40])])
            })
            .collect();
        fixture.service.put(&cx(), collection, puts).await.unwrap();
    }
    for word in words {
        let distances = async |collection: &str| {
            let search =
                SearchRequest { collection: Some(collection.to_owned()), ..SearchRequest::text(word, 10) };
            let response = fixture.service.search(&cx(), search).await.unwrap();
            response.hits.iter().map(|hit| (hit.distance.unwrap() * 1e4).round()).collect::<Vec<_>>()
        };
        assert_eq!(distances(COLLECTION).await, distances("flat").await, "{word}");
    }
}

fn engine(config: &Config) -> Engine {
    #[derive(Debug)]
    struct FixedClock;
    impl engine::Clock for FixedClock {
        fn now_ms(&self) -> u64 {
            1_700_000_000_000
        }
    }
    Engine::open(Options {
        data_dir: config.data_dir.clone(),
        cpu: engine::Cpu::detect(),
        clock: Arc::new(FixedClock),
        cache_bytes: config.cache_bytes,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        durability: config.durability,
        verify_bytes_max: u64::MAX,
        tail_max: config.tail_max,
        index_threads: config.index_threads,
        lower_priority: || {},
        on_read_only: |_| {},
    })
    .unwrap()
}
