//! Operations on single documents.

use serde_json::{Value, json};

use crate::test_store::{DOCS, Response, TestStore, document, flat, path};

async fn create(store: &TestStore) {
    store
        .create(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
}

fn fields(response: Response) -> Value {
    response.expect(200)["fields"].clone()
}

pub(crate) async fn puts_gets_patches_and_deletes_a_document(store: &TestStore) {
    create(store).await;
    let one = json!({"title": "one", "tags": ["a", "b"], "year": 2024, "place": [1, 2]});
    let created = store.put(&document("1"), &one).await;
    assert_eq!(created.json["status"], "created");
    let etag = created.etag.clone().unwrap();
    assert_eq!(format!("\"{}\"", created.json["seq"]), etag);
    created.expect(201);

    let read = store.get(&document("1")).await;
    assert_eq!(read.etag.as_ref(), Some(&etag));
    assert_eq!(read.json["fields"], json!({"title": "one", "tags": ["a", "b"], "year": 2024}));
    assert_eq!(read.json.get("expires_at_ms"), None);
    let with_vectors = fields(store.get(&format!("{}?vectors=true", document("1"))).await);
    assert_eq!(with_vectors["place"], json!({"base64": "AACAPwAAAEA="}));
    store.call("GET", &document("1"), &[("if-none-match", &etag)], None).await.expect(304);

    let updated = store.patch(&document("1"), &json!({"year": -0.5, "tags": null, "note": "new"})).await;
    assert_eq!(updated.json["status"], "updated");
    assert_ne!(updated.etag.as_ref(), Some(&etag));
    updated.expect(200);
    let now = fields(store.get(&document("1")).await);
    assert_eq!(now, json!({"title": "one", "year": -0.5, "note": "new"}));
    assert_eq!(store.count("@tags:{a}").await, 0);
    assert_eq!(store.count("@year:[-1 0]").await, 1);
    assert_eq!(store.ids(json!({"vector": [1, 2]})).await, ["1"], "the vector is unchanged");

    store.delete(&document("1")).await.expect(204);
    store.get(&document("1")).await.expect_error(404, "document-not-found");
    store.delete(&document("1")).await.expect_error(404, "document-not-found");
    assert!(store.ids(json!({"vector": [1, 2]})).await.is_empty());
}

pub(crate) async fn put_replaces_the_whole_document(store: &TestStore) {
    create(store).await;
    let document_json =
        json!({"title": "one", "tags": ["a"], "year": 1, "place": [1, 2], "more": "x", "ttl_s": 600});
    store.put(&document("1"), &document_json).await.expect(201);
    assert!(store.get(&document("1")).await.json["expires_at_ms"].is_u64());
    store.put(&document("1"), &json!({"title": "two"})).await.expect(200);
    let read = store.get(&format!("{}?vectors=true", document("1"))).await.expect(200);
    assert_eq!(read["fields"], json!({"title": "two"}), "no field of the old document remains");
    assert_eq!(read.get("expires_at_ms"), None, "nor its expiry");
    assert!(store.ids(json!({"vector": [1, 2]})).await.is_empty());
    assert_eq!((store.count("@tags:{a}").await, store.count("@year:[1 1]").await), (0, 0));
    assert_eq!(store.count("*").await, 1);
}

pub(crate) async fn writing_an_equal_document_changes_nothing(store: &TestStore) {
    create(store).await;
    let one = json!({"title": "one", "tags": ["a"], "year": 1, "place": [1, 2]});
    let created = store.put(&document("1"), &one).await;
    let reordered = json!({"place": [1, 2], "year": 1, "tags": ["a"], "title": "one"});
    for body in [one, reordered] {
        let again = store.put(&document("1"), &body).await;
        assert_eq!((again.json["status"].as_str(), &again.etag), (Some("unchanged"), &created.etag));
    }
    let patched = store.patch(&document("1"), &json!({"year": 1, "nowhere": null})).await;
    assert_eq!((patched.json["status"].as_str(), &patched.etag), (Some("unchanged"), &created.etag));
}

pub(crate) async fn checks_the_preconditions_of_writes(store: &TestStore) {
    create(store).await;
    let (one, two) = (json!({"title": "one"}), json!({"title": "two"}));
    let path = document("1");
    let put = async |name: &str, value: &str, body: &Value| {
        store.call("PUT", &path, &[(name, value)], Some(body)).await
    };
    put("if-match", "*", &one).await.expect_error(412, "document-not-found");
    put("if-match", "\"7\"", &one).await.expect_error(412, "conflict");
    let created = put("if-none-match", "*", &one).await;
    let first = created.etag.clone().unwrap();
    created.expect(201);
    put("if-none-match", "*", &two).await.expect_error(412, "conflict");
    let updated = put("if-match", &first, &two).await;
    let second = updated.etag.clone().unwrap();
    updated.expect(200);
    assert_ne!(first, second);
    put("if-match", &first, &one).await.expect_error(412, "conflict");

    let send = async |method: &str, etag: &str, body: Option<&Value>| {
        store.call(method, &path, &[("if-match", etag)], body).await
    };
    send("PATCH", &first, Some(&one)).await.expect_error(412, "conflict");
    send("DELETE", &first, None).await.expect_error(412, "conflict");
    assert_eq!(store.get(&path).await.etag.as_ref(), Some(&second), "nothing has changed");
    let third = send("PATCH", &second, Some(&json!({"year": 3}))).await.etag.unwrap();
    send("DELETE", &second, None).await.expect_error(412, "conflict");
    send("DELETE", &third, None).await.expect(204);
    send("DELETE", "*", None).await.expect_error(412, "document-not-found");
}

pub(crate) async fn reports_missing_collections_and_documents(store: &TestStore) {
    store.get(&document("1")).await.expect_error(404, "collection-not-found");
    store
        .post(&path(DOCS, "search"), &json!({"vector": [1, 2]}))
        .await
        .expect_error(404, "collection-not-found");
    create(store).await;
    store.get(&document("1")).await.expect_error(404, "document-not-found");
    store.patch(&document("1"), &json!({"title": "x"})).await.expect_error(404, "document-not-found");
    for id in ["\u{7}", &"x".repeat(513)] {
        store.put(&document(id), &json!({"title": "x"})).await.expect_error(422, "id");
        store.get(&document(id)).await.expect_error(422, "id");
    }
    assert!(store.ids(json!({"vector": [1, 2]})).await.is_empty());
    assert_eq!(store.count("*").await, 0);
    assert!(store.all_ids().await.is_empty());
}
