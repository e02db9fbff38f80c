//! The end of documents, on the store's own clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::house::{DOCS, House, document, flat};

/// Longer than any document lives here: beyond it the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until the document is gone.
async fn ended(house: &House, id: &str) {
    let until = Instant::now() + PATIENCE;
    while house.get(&document(id)).await.status != 404 {
        assert!(Instant::now() < until, "document {id} does not end");
        tokio::time::sleep(LOOK).await;
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(crate) async fn a_document_ends_with_its_life(house: &House) {
    house.make(json!([{"name": "tags", "kind": "tag"}, flat(2, "l2")])).await;
    house.load(&[json!({"id": "stays", "place": [0, 0], "tags": ["x"]})]).await;
    let before = now_ms();
    house.put(&document("ends"), &json!({"place": [1, 0], "tags": ["x"], "ttl_s": 0.8})).await.expect(201);
    let after = now_ms();
    let read = house.get(&document("ends")).await;
    if read.status == 200 {
        let end = read.json["expires_at_ms"].as_u64().unwrap();
        assert!((before + 800..=after + 800).contains(&end), "{before} {end} {after}");
    }
    ended(house, "ends").await;
    assert!(now_ms() >= before + 800, "it ended too early");
    // At once gone from everywhere.
    assert_eq!(house.ids(json!({"vector": [1, 0]})).await, ["stays"]);
    assert_eq!((house.count("*").await, house.count("@tags:{x}").await), (1, 1));
    assert_eq!(house.everything().await.len(), 1);
    house.delete(&document("ends")).await.refused(404, "document-not-found");
    house.put(&document("ends"), &json!({"place": [2, 0]})).await.expect(201);
    assert_eq!(house.get(&document("ends")).await.json.get("expires_at_ms"), None);
}

pub(crate) async fn a_life_is_changed_by_a_patch_and_kept_without(house: &House) {
    house.make(json!([flat(2, "l2")])).await;
    let end = async || house.get(&document("1")).await.expect(200)["expires_at_ms"].as_u64();
    house.put(&document("1"), &json!({"place": [1, 0], "ttl_s": 600})).await.expect(201);
    let first = end().await.unwrap();
    house.patch(&document("1"), &json!({"note": "x"})).await.expect(200);
    assert_eq!(end().await, Some(first), "kept");
    house.patch(&document("1"), &json!({"ttl_s": 1200})).await.expect(200);
    let second = end().await.unwrap();
    assert!((first + 590_000..first + 700_000).contains(&second), "{first} {second}");
    house.patch(&document("1"), &json!({"ttl_s": null})).await.expect(200);
    assert_eq!(end().await, None);
    house.patch(&document("1"), &json!({"ttl_s": 0.3})).await.expect(200);
    ended(house, "1").await;
    for bad in [json!(0), json!(-1), json!("60"), json!(1e300)] {
        house.put(&document("2"), &json!({"ttl_s": bad})).await.refused(422, "ttl");
    }
}

pub(crate) async fn the_collections_life_is_the_default(house: &House) {
    house.make_named(DOCS, json!({"fields": [flat(2, "l2")], "ttl_s": 600})).await;
    house.put(&document("1"), &json!({"place": [1, 0]})).await.expect(201);
    house.put(&document("2"), &json!({"place": [1, 0], "ttl_s": 60})).await.expect(201);
    let end = async |id: &str| house.get(&document(id)).await.expect(200)["expires_at_ms"].as_u64().unwrap();
    let now = now_ms();
    assert!((now + 500_000..=now + 600_000).contains(&end("1").await));
    assert!((now + 30_000..=now + 60_000).contains(&end("2").await));
}
