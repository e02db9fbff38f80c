//! Texts embedded by the service, whichever store keeps their vectors.

use serde_json::{Value, json};

use crate::{
    house::{House, document},
    tiny_model::DIM,
};

async fn stock(house: &House) {
    house
        .make(json!([
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
    house.load(&documents).await;
}

/// The document's distance from a text, and nothing else's.
async fn distance(house: &House, id: &str, text: &str) -> f64 {
    let hits = house.search(json!({"text": text, "k": 10, "exact": true})).await;
    hits.iter().find(|hit| hit.id == id).unwrap().distance
}

pub(crate) async fn texts_are_embedded_and_found_by_meaning(house: &House) {
    stock(house).await;
    for (text, id) in [("apple plum", "fruit"), ("refund card", "money"), ("reset password", "login")] {
        let hits = house.search(json!({"text": text, "k": 4})).await;
        assert_eq!((hits.len(), hits[0].id.as_str()), (4, id), "{text}");
        assert!(hits.is_sorted_by(|one, next| one.score >= next.score));
    }
    assert!(distance(house, "fruit", "apple pear plum cherry").await.abs() < 1e-4);
    let filtered = house.ids(json!({"text": "apple", "filter": "@tags:{network | money}"})).await;
    assert_eq!(filtered.len(), 2);
    assert!(!filtered.contains(&"fruit".to_owned()));
    house.put(&document("empty"), &json!({"title": " ", "content": ""})).await.refused(422, "text-empty");
}

pub(crate) async fn a_changed_text_has_a_new_vector(house: &House) {
    stock(house).await;
    house.patch(&document("fruit"), &json!({"tags": ["x"]})).await.expect(200);
    assert!(distance(house, "fruit", "apple pear plum cherry").await.abs() < 1e-4, "the text is the same");
    house.patch(&document("fruit"), &json!({"content": "melon grape"})).await.expect(200);
    assert!(distance(house, "fruit", "apple pear melon grape").await.abs() < 1e-4);
    house.put(&document("fruit"), &json!({"title": "winter summer"})).await.expect(200);
    assert!(distance(house, "fruit", "winter summer").await.abs() < 1e-4);
    assert_eq!(house.ids(json!({"text": "winter", "k": 1})).await, ["fruit"]);
}

pub(crate) async fn a_vector_of_ones_own_stands_in_place_of_the_computed(house: &House) {
    stock(house).await;
    let mut own = vec![0.0; DIM];
    own[3] = 2.0;
    house
        .put(&document("own"), &json!({"title": "apple", "content": "pear", "embedding": own}))
        .await
        .expect(201);
    let hits = house.search(json!({"vector": own, "k": 1})).await;
    assert_eq!(hits[0].id, "own");
    assert!(hits[0].distance.abs() < 1e-4);
    assert!(distance(house, "own", "apple pear").await > 0.1, "its text was not embedded");
}
