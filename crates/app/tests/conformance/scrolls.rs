//! Scrolls, counts, and deletions by filter.

use std::collections::BTreeSet;

use serde_json::json;

use crate::test_store::{DOCS, TestStore, encoded, flat, path};

/// Creates a collection of `count` documents with ranks from 0.
async fn create_ranked(store: &TestStore, count: usize) {
    create_ranked_with_ids(store, count, |rank| rank.to_string()).await;
}

async fn create_ranked_with_ids(store: &TestStore, count: usize, id: impl Fn(usize) -> String) {
    store
        .create(
            json!([{"name": "parity", "kind": "tag"}, {"name": "rank", "kind": "numeric"}, flat(2, "l2")]),
        )
        .await;
    let documents: Vec<_> = (0..count)
        .map(|rank| {
            let parity = ["even", "odd"][rank % 2];
            json!({"id": id(rank), "rank": rank, "parity": [parity], "place": [rank, 0]})
        })
        .collect();
    store.load(&documents).await;
}

pub(crate) async fn a_scroll_returns_every_document_once(store: &TestStore) {
    // Long ids, since a cursor must fit into a URL.
    let id = |number: usize| format!("{number:>0100}");
    create_ranked_with_ids(store, 2345, id).await;
    // A document whose key has a prefix of the collection's prefix, but is not in the collection.
    store.create_named("doc", json!({"fields": [flat(2, "l2")]})).await;
    store.put(&path("doc", "documents/s:x"), &json!({"place": [1, 1]})).await.expect(201);
    let expected: BTreeSet<String> = (0..2345).map(id).collect();
    for limit in [500, 600, 999, 1000] {
        assert_eq!(store.all_ids_with_page_size(limit).await, expected, "{limit} per page");
    }
}

pub(crate) async fn a_scroll_accepts_a_filter_and_a_limit(store: &TestStore) {
    create_ranked(store, 500).await;
    let mut seen = BTreeSet::new();
    let mut after = String::new();
    for _ in 0..500 {
        let filter = encoded("@parity:{odd} @rank:[(100 +inf]");
        let page = store
            .get(&format!("{}?limit=7&filter={filter}{after}", path(DOCS, "documents")))
            .await
            .expect(200);
        let documents = page["documents"].as_array().unwrap();
        assert!(documents.len() <= 7, "{} documents", documents.len());
        for document in documents {
            assert_eq!(document["fields"]["parity"], json!(["odd"]));
            assert!(document["seq"].is_u64());
            assert!(
                seen.insert(document["fields"]["rank"].as_u64().unwrap()),
                "{document} is returned twice"
            );
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", encoded(next)),
            None => break,
        }
    }
    let expected: BTreeSet<u64> = (101..500).filter(|rank| rank % 2 == 1).collect();
    assert_eq!(seen, expected);
    let documents = path(DOCS, "documents");
    for limit in [0, 1001] {
        store.get(&format!("{documents}?limit={limit}")).await.expect_error(422, "limit");
    }
    let bad = store.get(&format!("{documents}?after=no%20cursor")).await;
    assert!(matches!(bad.status, 400 | 422), "{}", bad.json);
    // A well-formed cursor with an invalid position.
    let page = store.get(&format!("{documents}?limit=1")).await.expect(200);
    let mut parts: Vec<&str> = page["next"].as_str().unwrap().split('.').collect();
    if let [_, _, prefix, _, ..] = &mut parts[..] {
        *prefix = "1";
        store
            .get(&format!("{documents}?after={}", encoded(&parts.join("."))))
            .await
            .expect_error(422, "cursor");
    }
    let vectors = store.get(&format!("{documents}?limit=1&vectors=true")).await.expect(200);
    assert!(vectors["documents"][0]["fields"]["place"]["base64"].is_string());
}

pub(crate) async fn counts_and_deletes_matching_documents(store: &TestStore) {
    create_ranked(store, 2500).await;
    let delete = async |filter: &str| {
        let response = store.post(&path(DOCS, "delete"), &json!({"filter": filter})).await.expect(200);
        response["deleted"].as_u64().unwrap()
    };
    assert_eq!(store.count("*").await, 2500);
    assert_eq!(store.count("-@parity:{odd}").await, 1250);
    assert_eq!(delete("@parity:{odd}").await, 1250);
    assert_eq!(delete("@parity:{odd}").await, 0);
    assert_eq!(store.count("*").await, 1250);
    assert_eq!(store.ids(json!({"vector": [1, 0], "k": 2})).await, ["0", "2"]);
    assert_eq!(delete("@rank:[-inf 999]").await, 500);
    assert_eq!(delete("*").await, 750);
    assert_eq!(store.count("*").await, 0);
    assert!(store.all_ids().await.is_empty());
}
