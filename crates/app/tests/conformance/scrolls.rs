//! Going through a collection, counting and clearing it.

use std::collections::BTreeSet;

use serde_json::json;

use crate::house::{DOCS, House, encoded, flat, path};

async fn stock(house: &House, count: usize) {
    stock_as(house, count, |rank| rank.to_string()).await;
}

async fn stock_as(house: &House, count: usize, id: impl Fn(usize) -> String) {
    house
        .make(json!([{"name": "parity", "kind": "tag"}, {"name": "rank", "kind": "numeric"}, flat(2, "l2")]))
        .await;
    let documents: Vec<_> = (0..count)
        .map(|rank| {
            let parity = ["even", "odd"][rank % 2];
            json!({"id": id(rank), "rank": rank, "parity": [parity], "place": [rank, 0]})
        })
        .collect();
    house.load(&documents).await;
}

pub(crate) async fn every_document_is_seen_once(house: &House) {
    // What a scroll has to remember of them must fit into an address.
    let id = |number: usize| format!("{number:>0100}");
    stock_as(house, 2345, id).await;
    // Neighbours by name that are not in the collection.
    house.make_named("doc", json!({"fields": [flat(2, "l2")]})).await;
    house.put(&path("doc", "documents/s:x"), &json!({"place": [1, 1]})).await.expect(201);
    let all: BTreeSet<String> = (0..2345).map(id).collect();
    for limit in [500, 600, 999, 1000] {
        assert_eq!(house.everything_by(limit).await, all, "{limit} a page");
    }
}

pub(crate) async fn a_scroll_takes_a_filter_and_a_limit(house: &House) {
    stock(house, 500).await;
    let mut seen = BTreeSet::new();
    let mut after = String::new();
    for _ in 0..500 {
        let filter = encoded("@parity:{odd} @rank:[(100 +inf]");
        let page = house
            .get(&format!("{}?limit=7&filter={filter}{after}", path(DOCS, "documents")))
            .await
            .expect(200);
        let documents = page["documents"].as_array().unwrap();
        assert!(documents.len() <= 7, "{} documents", documents.len());
        for document in documents {
            assert_eq!(document["fields"]["parity"], json!(["odd"]));
            assert!(document["seq"].is_u64());
            assert!(seen.insert(document["fields"]["rank"].as_u64().unwrap()), "{document} comes twice");
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
        house.get(&format!("{documents}?limit={limit}")).await.refused(422, "limit");
    }
    let bad = house.get(&format!("{documents}?after=no%20cursor")).await;
    assert!(matches!(bad.status, 400 | 422), "{}", bad.json);
    // A place that is none, in the words of one that is.
    let page = house.get(&format!("{documents}?limit=1")).await.expect(200);
    let mut parts: Vec<&str> = page["next"].as_str().unwrap().split('.').collect();
    if let [_, _, prefix, _, ..] = &mut parts[..] {
        *prefix = "1";
        house.get(&format!("{documents}?after={}", encoded(&parts.join(".")))).await.refused(422, "cursor");
    }
    let vectors = house.get(&format!("{documents}?limit=1&vectors=true")).await.expect(200);
    assert!(vectors["documents"][0]["fields"]["place"]["base64"].is_string());
}

pub(crate) async fn matching_documents_are_counted_and_deleted(house: &House) {
    stock(house, 2500).await;
    let delete = async |filter: &str| {
        let reply = house.post(&path(DOCS, "delete"), &json!({"filter": filter})).await.expect(200);
        reply["deleted"].as_u64().unwrap()
    };
    assert_eq!(house.count("*").await, 2500);
    assert_eq!(house.count("-@parity:{odd}").await, 1250);
    assert_eq!(delete("@parity:{odd}").await, 1250);
    assert_eq!(delete("@parity:{odd}").await, 0);
    assert_eq!(house.count("*").await, 1250);
    assert_eq!(house.ids(json!({"vector": [1, 0], "k": 2})).await, ["0", "2"]);
    assert_eq!(delete("@rank:[-inf 999]").await, 500);
    assert_eq!(delete("*").await, 750);
    assert_eq!(house.count("*").await, 0);
    assert!(house.everything().await.is_empty());
}
