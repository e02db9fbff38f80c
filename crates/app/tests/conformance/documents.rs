//! Documents one by one: put, read, changed, guarded, taken away.

use serde_json::{Value, json};

use crate::house::{DOCS, House, Reply, document, flat, path};

async fn make(house: &House) {
    house
        .make(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
}

fn fields(reply: Reply) -> Value {
    reply.expect(200)["fields"].clone()
}

pub(crate) async fn a_document_is_put_read_changed_and_deleted(house: &House) {
    make(house).await;
    let one = json!({"title": "one", "tags": ["a", "b"], "year": 2024, "place": [1, 2]});
    let made = house.put(&document("1"), &one).await;
    assert_eq!(made.json["status"], "created");
    let etag = made.etag.clone().unwrap();
    assert_eq!(format!("\"{}\"", made.json["seq"]), etag);
    made.expect(201);

    let read = house.get(&document("1")).await;
    assert_eq!(read.etag.as_ref(), Some(&etag));
    assert_eq!(read.json["fields"], json!({"title": "one", "tags": ["a", "b"], "year": 2024}));
    assert_eq!(read.json.get("expires_at_ms"), None);
    let whole = fields(house.get(&format!("{}?vectors=true", document("1"))).await);
    assert_eq!(whole["place"], json!({"base64": "AACAPwAAAEA="}));
    house.call("GET", &document("1"), &[("if-none-match", &etag)], None).await.expect(304);

    let changed = house.patch(&document("1"), &json!({"year": -0.5, "tags": null, "note": "new"})).await;
    assert_eq!(changed.json["status"], "updated");
    assert_ne!(changed.etag.as_ref(), Some(&etag));
    changed.expect(200);
    let now = fields(house.get(&document("1")).await);
    assert_eq!(now, json!({"title": "one", "year": -0.5, "note": "new"}));
    assert_eq!(house.count("@tags:{a}").await, 0);
    assert_eq!(house.count("@year:[-1 0]").await, 1);
    assert_eq!(house.ids(json!({"vector": [1, 2]})).await, ["1"], "the vector stayed");

    house.delete(&document("1")).await.expect(204);
    house.get(&document("1")).await.refused(404, "document-not-found");
    house.delete(&document("1")).await.refused(404, "document-not-found");
    assert!(house.ids(json!({"vector": [1, 2]})).await.is_empty());
}

pub(crate) async fn a_put_replaces_the_whole_document(house: &House) {
    make(house).await;
    let whole = json!({"title": "one", "tags": ["a"], "year": 1, "place": [1, 2], "more": "x", "ttl_s": 600});
    house.put(&document("1"), &whole).await.expect(201);
    assert!(house.get(&document("1")).await.json["expires_at_ms"].is_u64());
    house.put(&document("1"), &json!({"title": "two"})).await.expect(200);
    let read = house.get(&format!("{}?vectors=true", document("1"))).await.expect(200);
    assert_eq!(read["fields"], json!({"title": "two"}), "nothing of the old one stays");
    assert_eq!(read.get("expires_at_ms"), None, "nor its end");
    assert!(house.ids(json!({"vector": [1, 2]})).await.is_empty());
    assert_eq!((house.count("@tags:{a}").await, house.count("@year:[1 1]").await), (0, 0));
    assert_eq!(house.count("*").await, 1);
}

pub(crate) async fn the_same_document_again_is_unchanged(house: &House) {
    make(house).await;
    let one = json!({"title": "one", "tags": ["a"], "year": 1, "place": [1, 2]});
    let made = house.put(&document("1"), &one).await;
    let turned = json!({"place": [1, 2], "year": 1, "tags": ["a"], "title": "one"});
    for again in [one, turned] {
        let again = house.put(&document("1"), &again).await;
        assert_eq!((again.json["status"].as_str(), &again.etag), (Some("unchanged"), &made.etag));
    }
    let patched = house.patch(&document("1"), &json!({"year": 1, "nowhere": null})).await;
    assert_eq!((patched.json["status"].as_str(), &patched.etag), (Some("unchanged"), &made.etag));
}

pub(crate) async fn guards_are_kept(house: &House) {
    make(house).await;
    let (one, two) = (json!({"title": "one"}), json!({"title": "two"}));
    let path = document("1");
    let put = async |name: &str, value: &str, body: &Value| {
        house.call("PUT", &path, &[(name, value)], Some(body)).await
    };
    put("if-match", "*", &one).await.refused(412, "document-not-found");
    put("if-match", "\"7\"", &one).await.refused(412, "conflict");
    let made = put("if-none-match", "*", &one).await;
    let first = made.etag.clone().unwrap();
    made.expect(201);
    put("if-none-match", "*", &two).await.refused(412, "conflict");
    let changed = put("if-match", &first, &two).await;
    let second = changed.etag.clone().unwrap();
    changed.expect(200);
    assert_ne!(first, second);
    put("if-match", &first, &one).await.refused(412, "conflict");

    let change = async |method: &str, etag: &str, body: Option<&Value>| {
        house.call(method, &path, &[("if-match", etag)], body).await
    };
    change("PATCH", &first, Some(&one)).await.refused(412, "conflict");
    change("DELETE", &first, None).await.refused(412, "conflict");
    assert_eq!(house.get(&path).await.etag.as_ref(), Some(&second), "nothing of it was done");
    let third = change("PATCH", &second, Some(&json!({"year": 3}))).await.etag.unwrap();
    change("DELETE", &second, None).await.refused(412, "conflict");
    change("DELETE", &third, None).await.expect(204);
    change("DELETE", "*", None).await.refused(412, "document-not-found");
}

pub(crate) async fn what_is_not_there_is_told(house: &House) {
    house.get(&document("1")).await.refused(404, "collection-not-found");
    house.post(&path(DOCS, "search"), &json!({"vector": [1, 2]})).await.refused(404, "collection-not-found");
    make(house).await;
    house.get(&document("1")).await.refused(404, "document-not-found");
    house.patch(&document("1"), &json!({"title": "x"})).await.refused(404, "document-not-found");
    for id in ["\u{7}", &"x".repeat(513)] {
        house.put(&document(id), &json!({"title": "x"})).await.refused(422, "id");
        house.get(&document(id)).await.refused(422, "id");
    }
    assert!(house.ids(json!({"vector": [1, 2]})).await.is_empty());
    assert_eq!(house.count("*").await, 0);
    assert!(house.everything().await.is_empty());
}
