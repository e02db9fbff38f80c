//! Texts embedded by the service, in every store.

use serde_json::{Value, json};
use testing::tiny_model::DIM;

use crate::test_store::{TestStore, document};

async fn create_articles(store: &TestStore) {
    store
        .create(json!([
            {"name": "title", "kind": "text"},
            {"name": "content", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "embedding", "kind": "vector", "embed": {"fields": ["title", "content"], "model": "tiny"}},
        ]))
        .await;
    let documents: Vec<Value> = [
        ("fruit", "apple pear", "plum cherry"),
        ("money", "invoice refund", "payment card"),
        ("login", "password account", "reset token"),
        ("network", "router cable", "signal port"),
    ]
    .into_iter()
    .map(|(id, title, content)| json!({"id": id, "title": title, "content": content, "tags": [id]}))
    .collect();
    store.load(&documents).await;
}

/// The distance of one document from a text.
async fn distance(store: &TestStore, id: &str, text: &str) -> f64 {
    let hits = store.search(json!({"text": text, "k": 10, "exact": true})).await;
    hits.iter().find(|hit| hit.id == id).unwrap().distance
}

pub(crate) async fn finds_embedded_texts_by_meaning(store: &TestStore) {
    create_articles(store).await;
    for (text, id) in [("apple plum", "fruit"), ("refund card", "money"), ("reset password", "login")] {
        let hits = store.search(json!({"text": text, "k": 4})).await;
        assert_eq!((hits.len(), hits[0].id.as_str()), (4, id), "{text}");
        assert!(hits.is_sorted_by(|one, next| one.score >= next.score));
    }
    assert!(distance(store, "fruit", "apple pear plum cherry").await.abs() < 1e-4);
    let filtered = store.ids(json!({"text": "apple", "filter": "@tags:{network | money}"})).await;
    assert_eq!(filtered.len(), 2);
    assert!(!filtered.contains(&"fruit".to_owned()));
    store
        .put(&document("empty"), &json!({"title": " ", "content": ""}))
        .await
        .expect_error(422, "text-empty");
}

pub(crate) async fn embeds_a_changed_text_again(store: &TestStore) {
    create_articles(store).await;
    store.patch(&document("fruit"), &json!({"tags": ["x"]})).await.expect(200);
    assert!(distance(store, "fruit", "apple pear plum cherry").await.abs() < 1e-4, "the text is unchanged");
    store.patch(&document("fruit"), &json!({"content": "melon grape"})).await.expect(200);
    assert!(distance(store, "fruit", "apple pear melon grape").await.abs() < 1e-4);
    store.put(&document("fruit"), &json!({"title": "winter summer"})).await.expect(200);
    assert!(distance(store, "fruit", "winter summer").await.abs() < 1e-4);
    assert_eq!(store.ids(json!({"text": "winter", "k": 1})).await, ["fruit"]);
}

pub(crate) async fn a_given_vector_replaces_the_computed_one(store: &TestStore) {
    create_articles(store).await;
    let mut vector = vec![0.0; DIM];
    vector[3] = 2.0;
    store
        .put(&document("own"), &json!({"title": "apple", "content": "pear", "embedding": vector}))
        .await
        .expect(201);
    let hits = store.search(json!({"vector": vector, "k": 1})).await;
    assert_eq!(hits[0].id, "own");
    assert!(hits[0].distance.abs() < 1e-4);
    assert!(distance(store, "own", "apple pear").await > 0.1, "its text was not embedded");
}
