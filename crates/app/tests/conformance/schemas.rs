//! Collections: made, found again, refused, dropped, named.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::house::{DOCS, House, collection, document, flat, found, path};

fn fields() -> Value {
    json!([
        {"name": "title", "kind": "text"},
        {"name": "tags", "kind": "tag"},
        {"name": "codes", "kind": "tag", "separator": ";", "case_sensitive": true},
        {"name": "year", "kind": "numeric"},
        {"name": "place", "kind": "vector", "dim": 4, "metric": "cosine", "m": 16, "ef_construction": 200, "ef_search": 50},
    ])
}

/// The schema with one option of one field changed; `null` takes it away.
fn changed(field: usize, option: &str, value: Value) -> Value {
    let mut fields = fields();
    if value.is_null() {
        fields[field].as_object_mut().unwrap().remove(option);
    } else {
        fields[field][option] = value;
    }
    json!({"fields": fields})
}

pub(crate) async fn an_equal_schema_is_found_and_another_refused(house: &House) {
    let schema = json!({"fields": fields()});
    let made = house.put(&collection(DOCS), &schema).await.expect(201);
    assert_eq!(made["name"], DOCS);
    assert_eq!(made["documents"], 0);
    let again = house.put(&collection(DOCS), &schema).await.expect(200);
    assert_eq!(again["schema"], made["schema"]);
    assert_eq!(house.get(&collection(DOCS)).await.expect(200)["schema"], made["schema"]);
    house.load(&[json!({"id": "1", "place": [1, 0, 0, 0]})]).await;

    let mut more = fields();
    more.as_array_mut().unwrap().push(json!({"name": "more", "kind": "text"}));
    let mut fewer = fields();
    fewer.as_array_mut().unwrap().remove(0);
    for (what, schema) in [
        ("kind", changed(0, "kind", json!("numeric"))),
        ("separator", changed(1, "separator", json!("|"))),
        ("case_sensitive", changed(2, "case_sensitive", json!(false))),
        ("dim", changed(4, "dim", json!(8))),
        ("metric", changed(4, "metric", json!("l2"))),
        ("m", changed(4, "m", json!(32))),
        ("ef_construction", changed(4, "ef_construction", json!(100))),
        ("type", changed(4, "type", json!("FLOAT16"))),
        ("more", json!({"fields": more})),
        ("title", json!({"fields": fewer})),
        ("prefixes", json!({"fields": fields(), "prefixes": ["other:"]})),
    ] {
        let refused = house.put(&collection(DOCS), &schema).await.refused(409, "collection-exists");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(DOCS), "{what}: {detail}");
    }
    let unharmed = house.get(&collection(DOCS)).await.expect(200);
    assert_eq!(unharmed["schema"], made["schema"], "never overwritten");
    assert_eq!(house.ids(json!({"vector": [1, 0, 0, 0]})).await, ["1"]);
}

pub(crate) async fn a_dropped_collection_leaves_its_documents_or_takes_them_along(house: &House) {
    let documents: Vec<Value> =
        (0..2500).map(|number| json!({"id": number.to_string(), "place": [number, 1]})).collect();
    let all: BTreeSet<String> = (0..2500).map(|number| number.to_string()).collect();
    house.make(json!([flat(2, "l2")])).await;
    house.load(&documents).await;
    house.delete(&collection(DOCS)).await.expect(204);
    house.get(&collection(DOCS)).await.refused(404, "collection-not-found");
    house.delete(&collection(DOCS)).await.refused(404, "collection-not-found");
    // Another schema over the same documents, which take their places in it.
    house.make(json!([flat(2, "cosine")])).await;
    assert_eq!(house.everything().await, all);
    house.settled(2500).await;
    assert_eq!(house.ids(json!({"vector": [2499, 1], "k": 1})).await.len(), 1);
    house.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    house.make(json!([flat(2, "l2")])).await;
    assert!(house.everything().await.is_empty());
    assert_eq!(house.count("*").await, 0);
}

pub(crate) async fn aliases_lead_to_collections(house: &House) {
    house.make(json!([flat(2, "l2")])).await;
    house.make_named("others", json!({"fields": [flat(2, "l2")]})).await;
    house.load(&[json!({"id": "1", "place": [1, 2]})]).await;
    let alias = |name: &str| format!("/aliases/{name}");
    house.put(&alias("now"), &json!({"collection": DOCS})).await.expect(200);
    let answer = house.post(&path("now", "search"), &json!({"vector": [1, 2]})).await.expect(200);
    assert_eq!(answer["collection"], DOCS, "by its own name");
    assert_eq!(found(&answer)[0].id, "1");
    assert_eq!(house.get(&path("now", "documents/1")).await.status, 200);
    assert_eq!(house.get(&collection("now")).await.expect(200)["aliases"], json!(["now"]));
    house.put(&path("now", "documents/2"), &json!({"place": [3, 4]})).await.expect(201);
    assert_eq!(house.everything().await.len(), 2);

    house.put(&alias("now"), &json!({"collection": "others"})).await.expect(200);
    assert!(
        found(&house.post(&path("now", "search"), &json!({"vector": [1, 2]})).await.expect(200)).is_empty()
    );
    assert_eq!(house.get(&collection(DOCS)).await.expect(200)["aliases"], json!([]));
    house
        .put(&alias("nothing"), &json!({"collection": "nowhere"}))
        .await
        .refused(404, "collection-not-found");
    house.put(&alias(DOCS), &json!({"collection": "others"})).await.refused(409, "name-taken");
    house.put(&collection("now"), &json!({"fields": [flat(2, "l2")]})).await.refused(409, "name-taken");
    house.put(&alias("a%20b"), &json!({"collection": DOCS})).await.refused(422, "name");
    house.put(&alias("%2E%2E"), &json!({"collection": DOCS})).await.refused(422, "name");
    house.delete(&alias("now")).await.expect(204);
    house.get(&collection("now")).await.refused(404, "collection-not-found");
    house.delete(&alias("now")).await.refused(404, "collection-not-found");
}

pub(crate) async fn names_are_checked_and_unknown_ones_told(house: &House) {
    let schema = json!({"fields": [flat(2, "l2")]});
    for name in ["a b", "a/b", "..%2Fx", "ä", "{x}", "%2E", "%2E%2E", "%2E%2E%2E", &"x".repeat(129)] {
        let reply = house.put(&collection(name), &schema).await;
        assert_eq!(
            (reply.status, reply.json["code"].as_str()),
            (422, Some("name")),
            "{name}: {}",
            reply.json
        );
    }
    for name in ["a", "A-1_b.c:d", "...a", &"x".repeat(128)] {
        house.put(&collection(name), &schema).await.expect(201);
    }
    let listed = house.get("/collections").await.expect(200);
    let names: BTreeSet<&str> =
        listed["collections"].as_array().unwrap().iter().map(|info| info["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["a", "A-1_b.c:d", "...a", "x".repeat(128).as_str()]));
    let unknown = house.get(&path("nowhere", "documents/1")).await.refused(404, "collection-not-found");
    assert!(unknown["detail"].as_str().unwrap().contains("A-1_b.c:d"), "{unknown}");
}

pub(crate) async fn several_prefixes_and_collections_over_one_prefix(house: &House) {
    let of = |prefixes: &[&str]| json!({"prefixes": prefixes, "fields": [{"name": "tags", "kind": "tag"}, flat(2, "l2")]});
    house.make_named("one", of(&["one:"])).await;
    house.make_named("two", of(&["two:"])).await;
    house.make_named(DOCS, of(&["one:", "two:"])).await;
    house.put(&path("one", "documents/1"), &json!({"place": [1, 0], "tags": ["x"]})).await.expect(201);
    house.put(&path("two", "documents/2"), &json!({"place": [2, 0], "tags": ["x"]})).await.expect(201);
    assert_eq!(house.ids(json!({"vector": [0, 0]})).await, ["1", "2"], "both are in the third");
    assert_eq!(house.count("@tags:{x}").await, 2);
    // What stands is changed where it stands; what is new goes under the first prefix.
    house.patch(&document("2"), &json!({"tags": ["y"]})).await.expect(200);
    assert_eq!(house.get(&path("two", "documents/2")).await.json["fields"]["tags"], json!(["y"]));
    house.put(&document("3"), &json!({"place": [3, 0]})).await.expect(201);
    assert_eq!(house.get(&path("one", "documents/3")).await.status, 200);
    house.delete(&document("2")).await.expect(204);
    house.get(&path("two", "documents/2")).await.refused(404, "document-not-found");
    // A collection made later takes in what stands already.
    house.make_named("late", of(&["one:"])).await;
    house.settled_named("late", 2).await;
    let late = house.post(&path("late", "search"), &json!({"vector": [0, 0]})).await.expect(200);
    assert_eq!(found(&late).into_iter().map(|hit| hit.id).collect::<Vec<_>>(), ["1", "3"]);
}

pub(crate) async fn bad_schemas_are_refused(house: &House) {
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
        let refused = house.put(&collection(DOCS), &schema).await;
        assert_eq!((refused.status, refused.json["code"].as_str()), (422, Some("schema")), "{schema}");
    }
    house.get(&collection(DOCS)).await.refused(404, "collection-not-found");
}
