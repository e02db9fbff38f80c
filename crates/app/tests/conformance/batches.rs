//! Batches of documents and concurrent writers.

use std::collections::BTreeSet;

use serde_json::json;

use crate::test_store::{DOCS, TestStore, document, flat, path};

async fn create(store: &TestStore) {
    store
        .create(json!([
            {"name": "tags", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
}

pub(crate) async fn rejects_only_the_invalid_documents_of_a_batch(store: &TestStore) {
    create(store).await;
    let documents = json!([
        {"id": "a", "year": 1, "place": [1, 1]},
        {"year": 2},
        {"id": "c", "year": "soon"},
        {"id": "d", "place": [1, 2, 3]},
        {"id": "e", "tags": ["x", "y,z"]},
        {"id": "f", "place": {"base64": "AAAA"}},
        {"id": "g", "title": ["x"]},
        {"id": "h", "year": true},
        {"id": "i", "place": {"base64": "AACAfwAAgD8="}},
        {"id": "a", "year": 10, "place": [2, 2]},
        {"id": "k", "year": 3, "place": [3, 3]},
        {"id": "k", "year": 3, "place": [3, 3]},
    ]);
    let response = store.post(&path(DOCS, "documents"), &documents).await.expect(200);
    let outcome = |result: &serde_json::Value| match result["error"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None => format!("{} {}", result["id"].as_str().unwrap(), result["status"].as_str().unwrap()),
    };
    let outcomes: Vec<String> = response["results"].as_array().unwrap().iter().map(outcome).collect();
    let expected = [
        "a created",
        "id-missing",
        "field-value",
        "vector-dimensions",
        "tag",
        "vector-dimensions",
        "field-kind",
        "field-value",
        "vector-value",
        "a updated",
        "k created",
        "k unchanged",
    ];
    assert_eq!(outcomes, expected, "{response}");
    assert_eq!(store.all_ids().await, BTreeSet::from(["a".to_owned(), "k".to_owned()]));
    assert_eq!(store.get(&document("a")).await.json["fields"]["year"], 10, "the last one wins");
}

pub(crate) async fn finds_acknowledged_writes_immediately(store: &TestStore) {
    create(store).await;
    for number in 0..200 {
        let id = number.to_string();
        let body = json!({"place": [number, 0], "tags": [format!("t{number}")], "year": number});
        store.put(&document(&id), &body).await.expect(201);
        assert_eq!(store.ids(json!({"vector": [number, 0], "k": 1})).await, [id.as_str()]);
        assert_eq!(store.count(&format!("@tags:{{t{number}}}")).await, 1);
        if number % 3 == 0 {
            store.delete(&document(&id)).await.expect(204);
            assert!(!store.ids(json!({"vector": [number, 0], "k": 3})).await.contains(&id));
        } else {
            store.patch(&document(&id), &json!({"place": [number, 9000]})).await.expect(200);
            assert_eq!(store.ids(json!({"vector": [number, 9000], "k": 1})).await, [id.as_str()]);
        }
    }
    let batch: Vec<_> = (0..1500).map(|number| json!({"id": format!("b{number}"), "year": -1})).collect();
    store.load(&batch).await;
    assert_eq!(store.count("@year:[-1 -1]").await, 1500);
}

pub(crate) async fn concurrent_writers_lose_no_documents(store: &TestStore) {
    create(store).await;
    let write = async |writer: usize| {
        for batch in 0..5 {
            let documents: Vec<_> = (0..40)
                .map(|number| {
                    // All writers write half of the ids.
                    let id = if number % 2 == 0 {
                        format!("shared-{batch}-{number}")
                    } else {
                        format!("{writer}-{batch}-{number}")
                    };
                    json!({"id": id, "year": writer, "tags": [format!("w{writer}")], "place": [writer, batch]})
                })
                .collect();
            store.load(&documents).await;
        }
    };
    tokio::join!(write(0), write(1), write(2), write(3));
    let all_ids = store.all_ids().await;
    assert_eq!(all_ids.len(), 5 * 20 * 5);
    assert_eq!(store.count("*").await, 500);
    // Every document is entirely from one writer.
    let mut total = 0;
    for writer in 0..4 {
        let filter = format!("@year:[{writer} {writer}]");
        let count = store.count(&filter).await;
        assert_eq!(store.count(&format!("{filter} @tags:{{w{writer}}}")).await, count);
        total += count;
    }
    assert_eq!(total, 500);
}

pub(crate) async fn applies_all_concurrent_patches_of_one_document(store: &TestStore) {
    create(store).await;
    store.put(&document("1"), &json!({"year": 0})).await.expect(201);
    let patch = async |writer: usize| {
        for number in 0..10 {
            let field = format!("f{writer}-{number}");
            let response = store.patch(&document("1"), &json!({ field: "x" })).await;
            assert_eq!(response.status, 200, "{}", response.json);
        }
    };
    tokio::join!(patch(0), patch(1), patch(2), patch(3));
    let fields = store.get(&document("1")).await.json["fields"].clone();
    assert_eq!(fields.as_object().unwrap().len(), 1 + 40, "{fields}");
}
