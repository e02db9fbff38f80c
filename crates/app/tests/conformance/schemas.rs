//! Collections: creation, schema conflicts, dropping, names and aliases.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::test_store::{DOCS, TestStore, collection, document, encoded, flat, hits, path};

fn fields() -> Value {
    json!([
        {"name": "title", "kind": "text"},
        {"name": "tags", "kind": "tag"},
        {"name": "codes", "kind": "tag", "separator": ";", "case_sensitive": true},
        {"name": "year", "kind": "numeric"},
        {"name": "place", "kind": "vector", "dim": 4, "metric": "cosine", "m": 16, "ef_construction": 200, "ef_search": 50},
    ])
}

/// The schema with one option of one field changed; `null` removes it.
fn with_changed_option(field: usize, option: &str, value: Value) -> Value {
    let mut fields = fields();
    if value.is_null() {
        fields[field].as_object_mut().unwrap().remove(option);
    } else {
        fields[field][option] = value;
    }
    json!({"fields": fields})
}

pub(crate) async fn accepts_an_equal_schema_and_rejects_a_different_one(store: &TestStore) {
    let schema = json!({"fields": fields()});
    let created = store.put(&collection(DOCS), &schema).await.expect(201);
    assert_eq!(created["name"], DOCS);
    assert_eq!(created["documents"], 0);
    let again = store.put(&collection(DOCS), &schema).await.expect(200);
    assert_eq!(again["schema"], created["schema"]);
    assert_eq!(store.get(&collection(DOCS)).await.expect(200)["schema"], created["schema"]);
    store.load(&[json!({"id": "1", "place": [1, 0, 0, 0]})]).await;

    let mut more = fields();
    more.as_array_mut().unwrap().push(json!({"name": "more", "kind": "text"}));
    let mut fewer = fields();
    fewer.as_array_mut().unwrap().remove(0);
    for (difference, schema) in [
        ("kind", with_changed_option(0, "kind", json!("numeric"))),
        ("separator", with_changed_option(1, "separator", json!("|"))),
        ("case_sensitive", with_changed_option(2, "case_sensitive", json!(false))),
        ("dim", with_changed_option(4, "dim", json!(8))),
        ("metric", with_changed_option(4, "metric", json!("l2"))),
        ("m", with_changed_option(4, "m", json!(32))),
        ("ef_construction", with_changed_option(4, "ef_construction", json!(100))),
        ("type", with_changed_option(4, "type", json!("FLOAT16"))),
        ("more", json!({"fields": more})),
        ("title", json!({"fields": fewer})),
        ("prefixes", json!({"fields": fields(), "prefixes": ["other:"]})),
    ] {
        let rejected = store.put(&collection(DOCS), &schema).await.expect_error(409, "collection-exists");
        let detail = rejected["detail"].as_str().unwrap();
        assert!(detail.contains(DOCS), "{difference}: {detail}");
    }
    let unchanged = store.get(&collection(DOCS)).await.expect(200);
    assert_eq!(unchanged["schema"], created["schema"], "the schema is not overwritten");
    assert_eq!(store.ids(json!({"vector": [1, 0, 0, 0]})).await, ["1"]);
}

pub(crate) async fn dropping_a_collection_keeps_or_deletes_its_documents(store: &TestStore) {
    let documents: Vec<Value> =
        (0..2500).map(|number| json!({"id": number.to_string(), "place": [number, 1]})).collect();
    let all: BTreeSet<String> = (0..2500).map(|number| number.to_string()).collect();
    store.create(json!([flat(2, "l2")])).await;
    store.load(&documents).await;
    store.delete(&collection(DOCS)).await.expect(204);
    store.get(&collection(DOCS)).await.expect_error(404, "collection-not-found");
    store.delete(&collection(DOCS)).await.expect_error(404, "collection-not-found");
    // A collection with another schema indexes the same documents.
    store.create(json!([flat(2, "cosine")])).await;
    assert_eq!(store.all_ids().await, all);
    store.wait_until_indexed(2500).await;
    assert_eq!(store.ids(json!({"vector": [2499, 1], "k": 1})).await.len(), 1);
    store.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    store.create(json!([flat(2, "l2")])).await;
    assert!(store.all_ids().await.is_empty());
    assert_eq!(store.count("*").await, 0);
}

pub(crate) async fn aliases_refer_to_collections(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    store.create_named("others", json!({"fields": [flat(2, "l2")]})).await;
    store.load(&[json!({"id": "1", "place": [1, 2]})]).await;
    let alias = |name: &str| format!("/aliases/{name}");
    store.put(&alias("now"), &json!({"collection": DOCS})).await.expect(200);
    let response = store.post(&path("now", "search"), &json!({"vector": [1, 2]})).await.expect(200);
    assert_eq!(response["collection"], DOCS, "the collection has its own name in the response");
    assert_eq!(hits(&response)[0].id, "1");
    assert_eq!(store.get(&path("now", "documents/1")).await.status, 200);
    assert_eq!(store.get(&collection("now")).await.expect(200)["aliases"], json!(["now"]));
    store.put(&path("now", "documents/2"), &json!({"place": [3, 4]})).await.expect(201);
    assert_eq!(store.all_ids().await.len(), 2);

    store.put(&alias("now"), &json!({"collection": "others"})).await.expect(200);
    assert!(
        hits(&store.post(&path("now", "search"), &json!({"vector": [1, 2]})).await.expect(200)).is_empty()
    );
    assert_eq!(store.get(&collection(DOCS)).await.expect(200)["aliases"], json!([]));
    store
        .put(&alias("nothing"), &json!({"collection": "nowhere"}))
        .await
        .expect_error(404, "collection-not-found");
    store.put(&alias(DOCS), &json!({"collection": "others"})).await.expect_error(409, "name-taken");
    store.put(&collection("now"), &json!({"fields": [flat(2, "l2")]})).await.expect_error(409, "name-taken");
    store.put(&alias("a%20b"), &json!({"collection": DOCS})).await.expect_error(422, "name");
    store.put(&alias("%2E%2E"), &json!({"collection": DOCS})).await.expect_error(422, "name");
    store.delete(&alias("now")).await.expect(204);
    store.get(&collection("now")).await.expect_error(404, "collection-not-found");
    store.delete(&alias("now")).await.expect_error(404, "collection-not-found");
}

pub(crate) async fn rejects_invalid_names_and_reports_unknown_ones(store: &TestStore) {
    let schema = json!({"fields": [flat(2, "l2")]});
    for name in ["a b", "a/b", "..%2Fx", "ä", "{x}", "%2E", "%2E%2E", "%2E%2E%2E", &"x".repeat(129)] {
        let response = store.put(&collection(name), &schema).await;
        assert_eq!(
            (response.status, response.json["code"].as_str()),
            (422, Some("name")),
            "{name}: {}",
            response.json
        );
    }
    for name in ["a", "A-1_b.c:d", "...a", &"x".repeat(128)] {
        store.put(&collection(name), &schema).await.expect(201);
    }
    let response = store.get("/collections").await.expect(200);
    let names: BTreeSet<&str> = response["collections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|info| info["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, BTreeSet::from(["a", "A-1_b.c:d", "...a", "x".repeat(128).as_str()]));
    let unknown = store.get(&path("nowhere", "documents/1")).await.expect_error(404, "collection-not-found");
    assert!(unknown["detail"].as_str().unwrap().contains("A-1_b.c:d"), "{unknown}");
}

pub(crate) async fn collections_can_share_prefixes_and_have_several(store: &TestStore) {
    let schema = |prefixes: &[&str]| json!({"prefixes": prefixes, "fields": [{"name": "tags", "kind": "tag"}, flat(2, "l2")]});
    store.create_named("one", schema(&["one:"])).await;
    store.create_named("two", schema(&["two:"])).await;
    store.create_named(DOCS, schema(&["one:", "two:"])).await;
    store.put(&path("one", "documents/1"), &json!({"place": [1, 0], "tags": ["x"]})).await.expect(201);
    store.put(&path("two", "documents/2"), &json!({"place": [2, 0], "tags": ["x"]})).await.expect(201);
    assert_eq!(
        store.ids(json!({"vector": [0, 0]})).await,
        ["1", "2"],
        "the third collection contains both documents"
    );
    assert_eq!(store.count("@tags:{x}").await, 2);
    // Existing documents keep their prefix; new documents get the first one.
    store.patch(&document("2"), &json!({"tags": ["y"]})).await.expect(200);
    assert_eq!(store.get(&path("two", "documents/2")).await.json["fields"]["tags"], json!(["y"]));
    store.put(&document("3"), &json!({"place": [3, 0]})).await.expect(201);
    assert_eq!(store.get(&path("one", "documents/3")).await.status, 200);
    store.delete(&document("2")).await.expect(204);
    store.get(&path("two", "documents/2")).await.expect_error(404, "document-not-found");
    // A collection created later indexes the existing documents.
    store.create_named("late", schema(&["one:"])).await;
    store.wait_until_indexed_in("late", 2).await;
    let late = store.post(&path("late", "search"), &json!({"vector": [0, 0]})).await.expect(200);
    assert_eq!(hits(&late).into_iter().map(|hit| hit.id).collect::<Vec<_>>(), ["1", "3"]);
}

pub(crate) async fn only_explicit_prefixes_may_overlap(store: &TestStore) {
    let fields = json!([flat(2, "l2")]);
    store.create_named("kb", json!({"fields": fields})).await;
    store.put(&path("kb", "documents/1"), &json!({"place": [1, 0]})).await.expect(201);
    let rejected = store.put(&collection("kb:private"), &json!({"fields": fields})).await;
    let rejected = rejected.expect_error(409, "prefix-overlap");
    assert!(rejected["detail"].as_str().unwrap().contains("\"kb\""), "{rejected}");
    store.get(&collection("kb:private")).await.expect_error(404, "collection-not-found");
    // Neither contains the other's documents.
    let apart = store.put(&collection("kb2"), &json!({"fields": fields})).await.expect(201);
    assert_eq!(apart.get("overlaps"), None);
    let explicit = json!({"fields": fields, "prefixes": ["kb:private:"]});
    let explicit = store.put(&collection("kb:private"), &explicit).await.expect(201);
    assert_eq!(explicit["overlaps"], json!(["kb"]));
    assert_eq!(store.get(&collection("kb")).await.expect(200)["overlaps"], json!(["kb:private"]));
    // What is kept of a dropped collection stays in the other one.
    let private = collection("kb:private");
    let rejected = store.delete(&private).await.expect_error(409, "prefix-overlap");
    assert!(rejected["detail"].as_str().unwrap().contains("documents=keep"), "{rejected}");
    store.delete(&format!("{private}?documents=keep")).await.expect(204);
    store.delete(&collection("kb2")).await.expect(204);
    // A collection that exists is not rejected for what was created after it.
    store.put(&private, &json!({"fields": fields, "prefixes": ["kb:private:"]})).await.expect(201);
    store.put(&collection("kb"), &json!({"fields": fields})).await.expect(200);
    let outer = json!({"fields": fields, "prefixes": ["inner:deep:"]});
    store.put(&collection("other"), &outer).await.expect(201);
    store.put(&collection("inner"), &json!({"fields": fields})).await.expect_error(409, "prefix-overlap");
}

pub(crate) async fn an_id_names_one_document_where_prefixes_are_nested(store: &TestStore) {
    for (number, prefixes) in [["a:", "a:q:"], ["b:q:", "b:"]].into_iter().enumerate() {
        let name = format!("nested{number}");
        store.create_named(&name, json!({"fields": [flat(2, "l2")], "prefixes": prefixes})).await;
        for id in ["q:x", "x"] {
            let document = path(&name, &format!("documents/{}", encoded(id)));
            store.put(&document, &json!({"place": [1, id.len()], "label": id})).await.expect(201);
        }
        for id in ["q:x", "x"] {
            let document = path(&name, &format!("documents/{}", encoded(id)));
            let found = store.get(&document).await.expect(200);
            assert_eq!((&found["id"], &found["fields"]["label"]), (&json!(id), &json!(id)));
        }
        let response = store.post(&path(&name, "search"), &json!({"vector": [1, 0]})).await.expect(200);
        assert_eq!(hits(&response).into_iter().map(|hit| hit.id).collect::<Vec<_>>(), ["x", "q:x"]);
        store.delete(&path(&name, "documents/x")).await.expect(204);
        store.get(&path(&name, &format!("documents/{}", encoded("q:x")))).await.expect(200);
    }
}

pub(crate) async fn rejects_invalid_schemas(store: &TestStore) {
    let vector = |option: &str, value: Value| {
        let mut field = flat(2, "l2");
        field[option] = value;
        json!({"fields": [field]})
    };
    for schema in [
        json!({"fields": []}),
        json!({"fields": [flat(2, "l2"), flat(2, "l2")]}),
        json!({"fields": [{"name": "", "kind": "text"}]}),
        json!({"fields": [{"name": "tags", "kind": "tag", "separator": "x"}]}),
        json!({"fields": [{"name": "tags", "kind": "tag", "separator": ",,"}]}),
        json!({"fields": [{"name": "tags", "kind": "text", "separator": ","}]}),
        json!({"fields": [flat(2, "l2")], "prefixes": []}),
        json!({"fields": [flat(2, "l2")], "ttl_s": 0}),
        vector("dim", json!(0)),
        vector("dim", json!(100_000)),
        vector("m", json!(8)),
    ] {
        let rejected = store.put(&collection(DOCS), &schema).await;
        assert_eq!((rejected.status, rejected.json["code"].as_str()), (422, Some("schema")), "{schema}");
    }
    store.get(&collection(DOCS)).await.expect_error(404, "collection-not-found");
}
