//! Expiry of documents, by the store's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::test_store::{DOCS, TestStore, document, flat};

/// Longer than the time to live of any document in these tests.
const TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until the document has expired.
async fn wait_until_expired(store: &TestStore, id: &str) {
    let until = Instant::now() + TIMEOUT;
    while store.get(&document(id)).await.status != 404 {
        assert!(Instant::now() < until, "document {id} does not expire");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(crate) async fn a_document_expires_after_its_time_to_live(store: &TestStore) {
    store.create(json!([{"name": "tags", "kind": "tag"}, flat(2, "l2")])).await;
    store.load(&[json!({"id": "permanent", "place": [0, 0], "tags": ["x"]})]).await;
    let before = now_ms();
    store
        .put(&document("expiring"), &json!({"place": [1, 0], "tags": ["x"], "ttl_s": 0.8}))
        .await
        .expect(201);
    let after = now_ms();
    let read = store.get(&document("expiring")).await;
    if read.status == 200 {
        let expires_at = read.json["expires_at_ms"].as_u64().unwrap();
        assert!((before + 800..=after + 800).contains(&expires_at), "{before} {expires_at} {after}");
    }
    wait_until_expired(store, "expiring").await;
    assert!(now_ms() >= before + 800, "expired too early");
    // All operations stop seeing it at the same time.
    assert_eq!(store.ids(json!({"vector": [1, 0]})).await, ["permanent"]);
    assert_eq!((store.count("*").await, store.count("@tags:{x}").await), (1, 1));
    assert_eq!(store.all_ids().await.len(), 1);
    store.delete(&document("expiring")).await.expect_error(404, "document-not-found");
    store.put(&document("expiring"), &json!({"place": [2, 0]})).await.expect(201);
    assert_eq!(store.get(&document("expiring")).await.json.get("expires_at_ms"), None);
}

pub(crate) async fn only_a_patch_with_a_time_to_live_changes_it(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    let expires_at = async || store.get(&document("1")).await.expect(200)["expires_at_ms"].as_u64();
    store.put(&document("1"), &json!({"place": [1, 0], "ttl_s": 600})).await.expect(201);
    let first = expires_at().await.unwrap();
    store.patch(&document("1"), &json!({"note": "x"})).await.expect(200);
    assert_eq!(expires_at().await, Some(first), "kept");
    store.patch(&document("1"), &json!({"ttl_s": 1200})).await.expect(200);
    let second = expires_at().await.unwrap();
    assert!((first + 590_000..first + 700_000).contains(&second), "{first} {second}");
    store.patch(&document("1"), &json!({"ttl_s": null})).await.expect(200);
    assert_eq!(expires_at().await, None);
    store.patch(&document("1"), &json!({"ttl_s": 0.3})).await.expect(200);
    wait_until_expired(store, "1").await;
    // The last one ends after the year 9999.
    for bad in [json!(0), json!(-1), json!("60"), json!(1e300), json!(252_000_000_000_u64)] {
        store.put(&document("2"), &json!({"ttl_s": bad})).await.expect_error(422, "ttl");
    }
}

pub(crate) async fn the_collection_defines_the_default_time_to_live(store: &TestStore) {
    store.create_named(DOCS, json!({"fields": [flat(2, "l2")], "ttl_s": 600})).await;
    store.put(&document("1"), &json!({"place": [1, 0]})).await.expect(201);
    store.put(&document("2"), &json!({"place": [1, 0], "ttl_s": 60})).await.expect(201);
    let expires_at =
        async |id: &str| store.get(&document(id)).await.expect(200)["expires_at_ms"].as_u64().unwrap();
    let now = now_ms();
    assert!((now + 500_000..=now + 600_000).contains(&expires_at("1").await));
    assert!((now + 30_000..=now + 60_000).contains(&expires_at("2").await));
}
