//! Collections: made, found, rebuilt beside themselves, dropped; and the models they need.

mod fixture;

use std::{fs, sync::Arc};

use engine::{ComputedVector, Engine, Op, Options};
use fixture::{COLLECTION, Fixture, article, cx, ids, patch, put, tiny_model, vector};
use service::{
    Algorithm, Config, DropMode, ErrorKind, FieldKind, Outcome, Put, Schema, SearchRequest, Service,
    VectorSchema, VectorType,
};

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

fn embedded_by(model: &str) -> Schema {
    with_vector(article("a:"), |field| *field = vector(model))
}

#[tokio::test]
async fn the_collection_meant_is_the_only_one() {
    let house = Fixture::empty();
    let none = house.service.default_collection().unwrap_err();
    assert_eq!((none.kind, none.code), (ErrorKind::NotFound, "collection-not-found"));
    let none = house.service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!(none.code, "collection-not-found");

    house.make(COLLECTION, article("a:")).await;
    assert_eq!(house.service.default_collection().unwrap(), COLLECTION);
    house.make("books", article("b:")).await;
    let several = house.service.default_collection().unwrap_err();
    assert_eq!((several.kind, several.code), (ErrorKind::Invalid, "collection-ambiguous"));
    assert!(several.message.contains("articles, books"), "{several}");
    let unknown = house.service.collection(&cx(), "films").await.unwrap_err();
    assert_eq!((unknown.kind, unknown.code), (ErrorKind::NotFound, "collection-not-found"));
    assert!(unknown.message.contains("articles, books"), "{unknown}");

    house.service.drop_collection(&cx(), COLLECTION, DropMode::KeepDocuments).await.unwrap();
    assert_eq!(house.service.default_collection().unwrap(), "books");
}

#[tokio::test]
async fn the_same_schema_again_finds_the_collection_another_is_refused() {
    let house = Fixture::new().await;
    let (info, made) = house.service.put_collection(&cx(), COLLECTION, article("a:"), false).await.unwrap();
    assert_eq!((info.name.as_str(), made), (COLLECTION, false));
    let other = house.service.put_collection(&cx(), COLLECTION, title_only("a:"), false).await.unwrap_err();
    assert_eq!(other.kind, ErrorKind::Conflict);
    let bad_name = house.service.put_collection(&cx(), "no/name", article("a:"), false).await.unwrap_err();
    assert_eq!(bad_name.kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn of_two_equal_calls_one_makes_the_collection() {
    let house = Fixture::empty();
    let cx = cx();
    let make = || house.service.put_collection(&cx, COLLECTION, article("a:"), false);
    let (one, other) = tokio::join!(make(), make());
    assert!(one.unwrap().1 != other.unwrap().1);
}

#[tokio::test]
async fn a_collection_made_later_takes_in_the_documents_that_stand() {
    let house = Fixture::new().await;
    let puts = (0..700).map(|number| {
        let word = tiny_model::WORDS[number % 40];
        put(&number.to_string(), &[("title", word), ("content", &format!("{number}"))])
    });
    house.service.put(&cx(), COLLECTION, puts.collect()).await.unwrap();
    house.make("titles", title_only("a:")).await;
    house.settled().await;
    let info = house.service.collection(&cx(), "titles").await.unwrap();
    assert_eq!((info.documents, info.vectors, info.unembedded), (700, 700, 0));
    let distance = house.distance_from("titles", "3", "cherry").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
    // A document is kept up in both from then on.
    house.service.patch(&cx(), COLLECTION, patch("3", &[("title", "router")])).await.unwrap();
    let title = house.distance_from("titles", "3", "router").await.unwrap();
    let article = house.distance_from(COLLECTION, "3", "router 3").await.unwrap();
    assert!(title.abs() < 1e-5 && article.abs() < 1e-5, "{title} {article}");
}

#[tokio::test]
async fn a_collection_is_rebuilt_beside_itself_and_switched() {
    let house = Fixture::new().await;
    for (id, title, content) in [("1", "apple", "router cable"), ("2", "router", "apple pear")] {
        house.put(id, title, content).await.unwrap();
    }
    let before = house.service.collection(&cx(), COLLECTION).await.unwrap();
    let (_, made) = house.service.put_collection(&cx(), COLLECTION, title_only("a:"), true).await.unwrap();
    assert!(!made);
    // Whichever version answers meanwhile, it answers.
    assert_eq!(house.ids("apple", 9).await.len(), 2);
    house.put("3", "winter", "apple").await.unwrap();
    house.settled().await;
    let after = house.service.collection(&cx(), COLLECTION).await.unwrap();
    assert_eq!(after.version.id, before.version.id);
    assert!(after.version.version > before.version.version);
    assert_eq!((after.documents, after.vectors), (3, 3));
    assert_eq!(after.schema, title_only("a:"));
    for (id, title) in [("1", "apple"), ("2", "router"), ("3", "winter")] {
        let distance = house.distance_from(COLLECTION, id, title).await.unwrap();
        assert!(distance.abs() < 1e-5, "{id}: {distance}");
    }
    let house = house.reopen();
    assert_eq!(house.put("1", "apple", "router cable").await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn names_and_aliases_lead_to_the_same_documents() {
    let house = Fixture::new().await;
    house.put("1", "apple", "").await.unwrap();
    house.service.put_alias(&cx(), "kb", COLLECTION).await.unwrap();
    assert_eq!(house.service.get(&cx(), "kb", "1").await.unwrap(), house.get("1").await.unwrap());
    let search = SearchRequest { collection: Some("kb".into()), ..SearchRequest::text("apple", 1) };
    let answer = house.service.search(&cx(), search).await.unwrap();
    assert_eq!((answer.collection.as_str(), ids(&answer)), (COLLECTION, vec!["1".to_owned()]));
    assert_eq!(house.service.default_collection().unwrap(), COLLECTION);
    // What is not easily mended takes the collection's own name.
    let dropped = house.service.drop_collection(&cx(), "kb", DropMode::DeleteDocuments).await.unwrap_err();
    assert_eq!(dropped.kind, ErrorKind::Conflict);
    house.service.drop_alias(&cx(), "kb").await.unwrap();
    assert_eq!(house.service.get(&cx(), "kb", "1").await.unwrap_err().code, "collection-not-found");
    assert_eq!(house.service.drop_alias(&cx(), "kb").await.unwrap_err().kind, ErrorKind::NotFound);
    let nowhere = house.service.put_alias(&cx(), "kb", "nowhere").await.unwrap_err();
    assert_eq!(nowhere.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_dropped_collection_leaves_its_documents_unless_told_otherwise() {
    let house = Fixture::new().await;
    house.put("1", "apple", "").await.unwrap();
    house.service.drop_collection(&cx(), COLLECTION, DropMode::KeepDocuments).await.unwrap();
    assert_eq!(house.service.stats(&cx()).await.unwrap().documents, 1);
    house.make(COLLECTION, article("a:")).await;
    house.settled().await;
    assert_eq!(house.ids("apple", 9).await, ["1"]);
    house.service.drop_collection(&cx(), COLLECTION, DropMode::DeleteDocuments).await.unwrap();
    assert_eq!(house.service.stats(&cx()).await.unwrap().documents, 0);
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_refused_when_the_collection_is_made() {
    let house = Fixture::empty();
    let make =
        async |schema| house.service.put_collection(&cx(), COLLECTION, schema, false).await.unwrap_err();
    let missing = make(embedded_by("absent")).await;
    assert_eq!((missing.kind, missing.code), (ErrorKind::Unavailable, "model-missing"));
    let dir = house.config.models_dir.join("absent");
    assert!(missing.message.contains(dir.to_str().unwrap()), "{missing}");
    assert!(missing.message.contains("nearfield model pull"), "{missing}");

    fs::create_dir(&dir).unwrap();
    let broken = make(embedded_by("absent")).await;
    assert_eq!((broken.kind, broken.code), (ErrorKind::Unavailable, "model-unreadable"));
    assert!(broken.message.contains("modules.json"), "{broken}");

    for name in ["../tiny", "/etc", "", ".."] {
        assert_eq!(make(embedded_by(name)).await.code, "model-name", "{name:?}");
    }
    let wide = make(with_vector(article("a:"), |vector| vector.dim = 384)).await;
    assert_eq!(
        (wide.kind, wide.code, wide.at.as_deref()),
        (ErrorKind::Invalid, "vector-dimensions", Some("embedding"))
    );
    assert!(wide.message.contains("384") && wide.message.contains("16"), "{wide}");
    let coarse = make(with_vector(article("a:"), |vector| vector.vector_type = VectorType::Int8)).await;
    assert_eq!((coarse.kind, coarse.code), (ErrorKind::Invalid, "vector-type"));
    assert!(house.service.collections(&cx()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_model_is_told_and_taken_up_when_it_comes() {
    let house = Fixture::new().await;
    house.put("1", "apple", "").await.unwrap();
    let closed = house.close();
    let away = closed.config.models_dir.join("away");
    fs::rename(closed.model_dir(), &away).unwrap();
    let house = closed.open();
    let readiness = house.service.readiness();
    assert!(!readiness.ready);
    assert!(
        readiness.notes.iter().any(|note| note.contains("nearfield model pull")),
        "{:?}",
        readiness.notes
    );
    // What needs no model works.
    assert_eq!(fixture::field(&house.get("1").await.unwrap(), "title"), Some("apple"));
    let search = house.service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((search.kind, search.code), (ErrorKind::Unavailable, "model-missing"));
    assert_eq!(house.put("2", "pear", "").await.unwrap_err().code, "model-missing");

    fs::rename(&away, house.model_dir()).unwrap();
    assert_eq!(house.ids("apple", 9).await, ["1"]);
    assert!(house.service.readiness().ready);
}

#[tokio::test]
async fn documents_left_without_vectors_get_them_at_the_next_start() {
    let house = Fixture::new().await;
    let closed = house.close();
    {
        let engine = engine(&closed.config);
        let schema = article("b:");
        let info = engine.create_collection("books", schema).unwrap();
        let fields = vec![engine::Field { name: (*b"title").into(), value: (*b"apple").into() }];
        let stands = Op::Put {
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
        engine.write(vec![stands]).pop().unwrap().unwrap();
        // The document is older than this collection, so that it lacks a vector there.
        engine.create_collection("later", title_only("b:")).unwrap();
        assert_eq!(engine.collection("later").unwrap().unembedded, 1);
        engine.close();
    }
    let house = closed.open();
    house.settled().await;
    let distance = house.distance_from("later", "1", "apple").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
}

#[tokio::test]
async fn vectors_of_another_model_are_told_and_made_again() {
    let house = Fixture::new().await;
    for (id, title) in [("1", "apple"), ("2", "router"), ("3", "winter")] {
        house.put(id, title, "").await.unwrap();
    }
    let closed = house.close();
    tiny_model::write(&closed.model_dir(), 2);
    let house = closed.open();
    house.settled().await;
    for (id, title) in [("1", "apple"), ("2", "router"), ("3", "winter")] {
        let distance = house.distance_from(COLLECTION, id, title).await.unwrap();
        assert!(distance.abs() < 1e-5, "{id}: {distance}");
    }
    assert!(house.service.readiness().ready);
    assert_eq!(house.service.activity().embedded_texts, 3);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_and_an_odd_one_is_told() {
    let house = Fixture::empty();
    for change in [
        |config: &mut Config| config.workers = 0,
        |config: &mut Config| config.queue_max = 0,
        |config: &mut Config| config.index_threads = 0,
    ] {
        let mut config = fixture::config(house.dir.path().join("other"));
        change(&mut config);
        assert_eq!(Service::open(config).unwrap_err().code, "config");
    }
    let mut config = fixture::config(house.dir.path().join("other"));
    config.workers = 2 * std::thread::available_parallelism().unwrap().get() + 1;
    let readiness = Service::open(config).unwrap().readiness();
    assert!(readiness.ready);
    assert!(readiness.notes.iter().any(|note| note.contains("workers")), "{:?}", readiness.notes);
}

#[tokio::test]
async fn a_data_directory_has_one_owner() {
    let house = Fixture::new().await;
    let error = Service::open(house.config.clone()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains(house.config.data_dir.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn flat_and_graph_find_the_same_in_a_small_collection() {
    let house = Fixture::new().await;
    house.make("flat", with_vector(article("f:"), |vector| vector.algorithm = Algorithm::Flat)).await;
    let words = tiny_model::WORDS;
    for collection in [COLLECTION, "flat"] {
        let puts: Vec<Put> = (0..words.len())
            .map(|number| {
                put(&number.to_string(), &[("title", words[number]), ("content", words[(number * 7) % 40])])
            })
            .collect();
        house.service.put(&cx(), collection, puts).await.unwrap();
    }
    for word in words {
        let ask = async |collection: &str| {
            let search =
                SearchRequest { collection: Some(collection.to_owned()), ..SearchRequest::text(word, 10) };
            let answer = house.service.search(&cx(), search).await.unwrap();
            answer.hits.iter().map(|hit| (hit.distance.unwrap() * 1e4).round()).collect::<Vec<_>>()
        };
        assert_eq!(ask(COLLECTION).await, ask("flat").await, "{word}");
    }
}

fn engine(config: &Config) -> Engine {
    #[derive(Debug)]
    struct Still;
    impl engine::Clock for Still {
        fn now_ms(&self) -> u64 {
            1_700_000_000_000
        }
    }
    Engine::open(Options {
        data_dir: config.data_dir.clone(),
        cpu: engine::Cpu::detect(),
        clock: Arc::new(Still),
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
