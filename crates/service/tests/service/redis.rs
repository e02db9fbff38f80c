//! Vectors in Redis after a change of the model, and a cluster with a search coordinator.

use service::{
    Algorithm, DropMode, FieldKind, FieldSchema, Leg, Metric, Outcome, Quantization, RedisStore, Schema,
    SearchRequest, Store, VectorSchema, VectorType,
};
use testing::{redis_stack::RedisStack, tiny_model};

use crate::{
    coordinator_cluster::CoordinatorCluster,
    fixture::{COLLECTION, Fixture, article, cx},
};

#[tokio::test]
async fn vectors_of_another_model_are_recomputed_once() {
    let Some(redis) = RedisStack::plain() else { return };
    let mut closed = Fixture::empty().close();
    closed.config.store = Store::Redis(RedisStore::new(redis.url()));
    let fixture = closed.open();
    fixture.create(COLLECTION, article("a:")).await;
    let documents = [("1", "apple"), ("2", "router"), ("3", "winter")];
    for (id, title) in documents {
        fixture.put(id, title, "").await.unwrap();
    }
    let closed = fixture.close();
    tiny_model::write(&closed.model_dir(), 2);
    let fixture = closed.open();
    fixture.wait_until_settled().await;
    for (id, title) in documents {
        let distance = fixture.distance_from(COLLECTION, id, title).await.unwrap();
        assert!(distance.abs() < 1e-5, "{id}: {distance}");
    }
    assert_eq!(fixture.service.activity().embedded_texts, 3);

    let fixture = fixture.reopen();
    assert!(fixture.service.readiness().ready, "{:?}", fixture.service.readiness());
    assert_eq!(fixture.put("1", "apple", "").await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(fixture.service.activity().embedded_texts, 0);
}

/// The schema of the index in the recorded replies.
fn recorded_schema() -> Schema {
    let field = |name: &str, kind| FieldSchema { name: name.to_owned(), kind };
    let vector = VectorSchema {
        algorithm: Algorithm::Hnsw { m: 16, ef_construction: 200, ef_search: 80 },
        vector_type: VectorType::Float32,
        quantization: Quantization::None,
        dim: 4,
        metric: Metric::Cosine,
        embed: None,
    };
    let fields = vec![
        field("title", FieldKind::Text),
        field("content", FieldKind::Text),
        field("embedding", FieldKind::Vector(vector)),
    ];
    Schema { prefixes: vec![b"article:".to_vec()], fields, ttl: None }
}

#[tokio::test]
async fn a_cluster_with_a_search_coordinator_has_one_index_served_by_any_server() {
    let cluster = CoordinatorCluster::start();
    let mut closed = Fixture::empty().close();
    closed.config.store = Store::Redis(RedisStore::new(cluster.url()));
    let fixture = closed.open();
    assert!(fixture.service.readiness().ready, "{:?}", fixture.service.readiness());
    fixture.create("kb", recorded_schema()).await;
    let created: Vec<Vec<String>> = cluster.received("FT.CREATE").into_iter().flatten().collect();
    assert_eq!(created.len(), 1, "{created:?}");
    assert_eq!(created[0][1], "kb", "one index with the collection's name");

    for _ in 0..4 {
        let search =
            SearchRequest { legs: vec![Leg::Vector(vec![1.0, 0.0, 0.0, 0.0])], ..SearchRequest::text("", 3) };
        let response = fixture.service.search(&cx(), search).await.unwrap();
        let [hit] = response.hits.as_slice() else { panic!("{:?}", response.hits) };
        assert_eq!((hit.id.as_str(), hit.distance), ("1", Some(0.25)));
        assert_eq!(hit.document.field(b"title"), Some(&b"Hello"[..]), "the hit includes its fields");
    }
    let searches = cluster.received("FT.SEARCH");
    assert_eq!(searches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2], "the servers are used in turn");
    assert!(searches.iter().flatten().all(|words| words[1] == "kb"));
    assert_eq!(fixture.service.shards("kb"), [], "a coordinator hides the shards");

    for _ in 0..3 {
        assert_eq!(
            fixture.service.collections(&cx()).await.unwrap().len(),
            1,
            "every server lists the collection"
        );
    }
    fixture.service.drop_collection(&cx(), "kb", DropMode::KeepDocuments).await.unwrap();
    let dropped: Vec<Vec<String>> = cluster.received("FT.DROPINDEX").into_iter().flatten().collect();
    assert_eq!(dropped.len(), 1, "{dropped:?}");
    assert_eq!(dropped[0][1], "kb");
}
