//! A Redis shared with other clients: Nearfield reads what they write, and writes the same format.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testing::{redis_stack::Reply, tiny_model::DIM};

use crate::test_store::{DOCS, TestStore, collection, document, flat, hits, path};

/// Longer than any step of a test takes.
const TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A vector close to one axis, with the dimension of the tiny model.
fn axis_vector(position: usize) -> Vec<f32> {
    (0..DIM).map(|axis| if axis == position { 1.0 } else { 0.1 }).collect()
}

/// Sends a command given as words separated by spaces.
fn send(store: &TestStore, words: &str) -> Reply {
    store.redis().command(&words.split_whitespace().collect::<Vec<_>>())
}

/// Writes a hash with HSET, as another client would.
fn hset(store: &TestStore, key: &str, fields: &[(&str, &[u8])]) {
    let mut words: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
    for (name, value) in fields {
        words.extend([name.as_bytes(), value]);
    }
    assert!(matches!(store.redis().command(&words), Reply::Integer(_)));
}

fn hash(store: &TestStore, key: &str) -> BTreeMap<String, Vec<u8>> {
    let Reply::Array(flat) = store.redis().command(&["HGETALL", key]) else { panic!("no hash at {key}") };
    let text = |response: &Reply| match response {
        Reply::Text(bytes) => bytes.clone(),
        other => panic!("{other:?}"),
    };
    flat.chunks(2).map(|pair| (String::from_utf8(text(&pair[0])).unwrap(), text(&pair[1]))).collect()
}

/// Waits until `condition` is true.
async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition().await {
        assert!(Instant::now() < deadline, "timed out: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

const ARTICLES: &str = "idx:articles";

fn article_fields() -> Value {
    json!([
        {"name": "title", "kind": "text"},
        {"name": "content", "kind": "text"},
        {"name": "embedding", "kind": "vector", "dim": DIM, "metric": "cosine", "m": 16, "ef_construction": 200,
         "ef_search": 50, "embed": {"fields": ["title", "content"], "model": "tiny"}},
    ])
}

pub(crate) async fn adopts_an_index_created_by_another_client(store: &TestStore) {
    let create = format!(
        "FT.CREATE {ARTICLES} ON HASH PREFIX 1 article: SCHEMA title TEXT content TEXT embedding VECTOR HNSW 12 TYPE \
         FLOAT32 DIM {DIM} DISTANCE_METRIC COSINE M 16 EF_CONSTRUCTION 200 EF_RUNTIME 50"
    );
    assert_eq!(send(store, &create), Reply::Text(b"OK".to_vec()));
    for number in 0..3 {
        let fields: [(&str, &[u8]); 3] =
            [("title", b"apple"), ("content", b"pear"), ("embedding", &bytes(&axis_vector(number)))];
        hset(store, &format!("article:{number}"), &fields);
    }
    let schema = |prefixes: Value, fields: Value| json!({"prefixes": prefixes, "fields": fields});
    let mut narrow = article_fields();
    narrow[2]["m"] = json!(8);
    let mut wide = article_fields();
    wide.as_array_mut().unwrap().push(json!({"name": "year", "kind": "numeric"}));
    for (schema, difference) in [
        (schema(json!(["article:"]), narrow), "embedding"),
        (schema(json!(["article:"]), wide), "year"),
        (schema(json!(["articles:"]), article_fields()), "article"),
    ] {
        let rejected = store.put(&collection(ARTICLES), &schema).await.expect_error(409, "collection-exists");
        assert!(rejected["detail"].as_str().unwrap().contains(difference), "{difference}: {rejected}");
    }
    let adopted = store.put(&collection(ARTICLES), &schema(json!(["article:"]), article_fields())).await;
    assert!(matches!(adopted.status, 200 | 201), "{}", adopted.json);
    assert_eq!(adopted.json["documents"], 3);
    let response =
        store.post(&path(ARTICLES, "search"), &json!({"vector": axis_vector(2), "k": 1})).await.expect(200);
    assert_eq!(hits(&response)[0].id, "2");
    assert_eq!(hits(&response)[0].fields, json!({"title": "apple", "content": "pear"}));
}

pub(crate) async fn hashes_written_by_other_clients_are_documents(store: &TestStore) {
    store
        .create(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
    for number in 0..20_u8 {
        let place = bytes(&[f32::from(number), 0.0]);
        let fields: [(&str, &[u8]); 5] = [
            ("title", b"external"),
            ("tags", b" Red, two words "),
            ("year", b"2024"),
            ("place", &place),
            ("more", b"\xff\x00"),
        ];
        hset(store, &format!("{DOCS}:{{t}}{number}"), &fields);
    }
    store.wait_until_indexed(20).await;
    assert_eq!(store.ids(json!({"vector": [7, 0], "k": 1})).await, ["{t}7"]);
    assert_eq!((store.count("@tags:{two words} @year:[2024 2024]").await, store.count("*").await), (20, 20));
    assert_eq!(store.all_ids().await.len(), 20);
    let read = store.get(&document("{t}7")).await;
    let etag = read.etag.clone().unwrap();
    let expected = json!({
        "title": "external", "tags": ["Red", "two words"], "year": 2024, "more": {"base64": "/wA="}
    });
    assert_eq!(read.expect(200)["fields"], expected);
    // Preconditions detect the next write of another client.
    hset(store, &format!("{DOCS}:{{t}}7"), &[("title", b"changed")]);
    let patch = async |etag: &str| {
        store.call("PATCH", &document("{t}7"), &[("if-match", etag)], Some(&json!({"year": 1}))).await
    };
    patch(&etag).await.expect_error(412, "conflict");
    let etag = store.get(&document("{t}7")).await.etag.unwrap();
    patch(&etag).await.expect(200);
    assert_eq!(store.get(&document("{t}7")).await.json["fields"]["title"], "changed");
    store.delete(&document("{t}7")).await.expect(204);
    assert_eq!(store.redis().command(&["EXISTS", &format!("{DOCS}:{{t}}7")]), Reply::Integer(0));
}

pub(crate) async fn writes_hashes_in_the_format_of_other_clients(store: &TestStore) {
    store
        .create(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag", "separator": "|"},
            {"name": "year", "kind": "numeric"},
            {"name": "place", "kind": "vector", "dim": DIM, "embed": {"fields": ["title"], "model": "tiny"}},
        ]))
        .await;
    let document_json = json!({"title": "apple", "tags": ["a", "b c"], "year": 2024.5, "place": axis_vector(1), "more": "x",
                     "ttl_s": 600});
    store.put(&document("{tag}1"), &document_json).await.expect(201);
    let key = format!("{DOCS}:{{tag}}1");
    let expected: BTreeMap<String, Vec<u8>> = [
        ("title", b"apple".to_vec()),
        ("tags", b"a|b c".to_vec()),
        ("year", b"2024.5".to_vec()),
        ("place", bytes(&axis_vector(1))),
        ("more", b"x".to_vec()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(hash(store, &key), expected);
    assert!(
        matches!(store.redis().command(&["PTTL", &key]), Reply::Integer(left) if (500_000..=600_000).contains(&left))
    );
    // The hash also contains the computed vector, and no removed field.
    store.put(&document("{tag}1"), &json!({"title": "pear"})).await.expect(200);
    let now = hash(store, &key);
    assert_eq!(now.keys().collect::<Vec<_>>(), ["place", "title"]);
    assert_eq!(now["place"].len(), 4 * DIM);
    assert_eq!(store.redis().command(&["PTTL", &key]), Reply::Integer(-1));
}

pub(crate) async fn reports_and_ignores_hashes_that_violate_the_schema(store: &TestStore) {
    store.create(json!([{"name": "year", "kind": "numeric"}, flat(2, "l2")])).await;
    store.load(&[json!({"id": "good", "place": [1, 2]})]).await;
    hset(store, &format!("{DOCS}:short"), &[("place", b"abc")]);
    hset(store, &format!("{DOCS}:word"), &[("year", b"soon"), ("place", &bytes(&[1.0, 2.0]))]);
    wait_until("both failures are reported", async || {
        store.get(&collection(DOCS)).await.expect(200)["failures"] == 2
    })
    .await;
    let info = store.get(&collection(DOCS)).await.expect(200);
    assert!(info["last_failure"].as_str().unwrap().contains("word"), "{info}");
    assert_eq!(store.ids(json!({"vector": [1, 2]})).await, ["good"]);
    assert_eq!(store.count("*").await, 1);
}

pub(crate) async fn does_not_change_keys_of_other_types(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    store.load(&[json!({"id": "1", "place": [1, 2]})]).await;
    send(store, &format!("SET {DOCS}:text hello"));
    send(store, &format!("RPUSH {DOCS}:list a b"));
    for id in ["text", "list"] {
        let read = store.get(&document(id)).await;
        read.expect_error(404, "document-not-found");
        store.put(&document(id), &json!({"place": [3, 4]})).await.expect_error(409, "key-taken");
        let batch = json!([{"id": id, "place": [3, 4]}, {"id": "1", "place": [1, 2]}]);
        let response = store.post(&path(DOCS, "documents"), &batch).await.expect(200);
        assert_eq!((&response["errors"], &response["unchanged"]), (&json!(1), &json!(1)), "{response}");
    }
    store.put(&document("empty"), &json!({})).await.expect_error(422, "field-value");
    assert_eq!(store.all_ids().await.len(), 1);
    assert_eq!(store.count("*").await, 1);
    store.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    assert_eq!(store.redis().command(&["GET", &format!("{DOCS}:text")]), Reply::Text(b"hello".to_vec()));
}

pub(crate) async fn embeds_hashes_without_a_vector(store: &TestStore) {
    for number in 0..30 {
        let fields: [(&str, &[u8]); 2] = [("title", b"apple"), ("content", b"pear")];
        hset(store, &format!("article:{number}"), &fields);
    }
    let schema = json!({"prefixes": ["article:"], "fields": article_fields()});
    store.create_named(ARTICLES, schema).await;
    wait_until("all vectors are searchable", async || {
        let search = json!({"text": "apple pear", "k": 100, "fields": []});
        let response = store.post(&path(ARTICLES, "search"), &search).await.expect(200);
        hits(&response).len() == 30
    })
    .await;
    assert_eq!(hash(store, "article:29")["embedding"].len(), 4 * DIM);
}

pub(crate) async fn rejects_what_redis_does_not_support_with_the_reason(store: &TestStore) {
    let with = |option: &str, value: &str| {
        let mut field = flat(8, "l2");
        field[option] = json!(value);
        json!({"fields": [field]})
    };
    for schema in [with("type", "INT8"), with("quantization", "int8"), with("quantization", "int4")] {
        let rejected = store.put(&collection(DOCS), &schema).await;
        assert_eq!(rejected.status, 422, "{}", rejected.json);
        assert!(rejected.json["detail"].as_str().unwrap().contains("Redis"), "{}", rejected.json);
    }
    store.create(json!([flat(2, "l2")])).await;
    let rebuild =
        store.put(&format!("{}?rebuild=true", collection(DOCS)), &json!({"fields": [flat(3, "l2")]})).await;
    assert!((400..500).contains(&rebuild.status), "{}", rebuild.json);
    assert!(rebuild.json["detail"].as_str().unwrap().contains("documents=keep"), "{}", rebuild.json);
}

pub(crate) async fn redis_differs_from_the_directory_as_documented(store: &TestStore) {
    store
        .create(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "place", "kind": "vector", "dim": DIM, "embed": {"fields": ["title"], "model": "tiny"}},
        ]))
        .await;
    // Case folding applies to A to Z only.
    store.put(&document("1"), &json!({"title": "apple", "tags": ["\u{c4}RGER"]})).await.expect(201);
    assert_eq!(store.count("@tags:{\u{c4}rger}").await, 1);
    assert_eq!(store.count("@tags:{\u{e4}rger}").await, 0);
    store
        .put(&document("2"), &json!({"title": "x", "tags": ["a\u{0}b"]}))
        .await
        .expect_error(422, "field-value");
    // The ETag depends only on the content.
    let etag = async || store.get(&document("1")).await.etag.unwrap();
    let first = etag().await;
    store.patch(&document("1"), &json!({"more": "x"})).await.expect(200);
    assert_ne!(etag().await, first);
    store.patch(&document("1"), &json!({"more": null})).await.expect(200);
    assert_eq!(etag().await, first);
    // A given vector is replaced when its text changes.
    store.put(&document("1"), &json!({"title": "apple", "place": axis_vector(3)})).await.expect(200);
    assert!(store.search(json!({"vector": axis_vector(3)})).await[0].distance < 1e-4);
    store.patch(&document("1"), &json!({"title": "pear"})).await.expect(200);
    assert!(store.search(json!({"vector": axis_vector(3)})).await[0].distance > 0.1);
    // A key has only one field of a given name.
    let other = json!({"prefixes": [format!("{DOCS}:")], "fields": [flat(2, "l2")]});
    store.put(&collection("other"), &other).await.expect_error(409, "schema-conflict");
}

pub(crate) async fn a_full_redis_rejects_writes_and_serves_reads(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    store.load(&[json!({"id": "1", "place": [1, 2]})]).await;
    send(store, "CONFIG SET maxmemory 1");
    store.put(&document("2"), &json!({"place": [3, 4]})).await.expect_error(507, "redis-full");
    let batch =
        json!([{"id": "2", "place": [3, 4]}, {"id": "1", "place": [1, 2]}, {"id": "3", "place": [3]}]);
    let response = store.post(&path(DOCS, "documents"), &batch).await.expect(200);
    let outcomes: Vec<&Value> =
        response["results"].as_array().unwrap().iter().map(|result| &result["error"]["code"]).collect();
    assert_eq!(outcomes, [&json!("redis-full"), &Value::Null, &json!("vector-dimensions")], "{response}");
    assert_eq!(store.ids(json!({"vector": [1, 2]})).await, ["1"]);
    store.get(&document("1")).await.expect(200);
    store.delete(&document("1")).await.expect(204);
    send(store, "CONFIG SET maxmemory 0");
    store.put(&document("2"), &json!({"place": [3, 4]})).await.expect(201);
}

pub(crate) async fn warns_if_redis_may_evict_documents(store: &TestStore) {
    send(store, "CONFIG SET maxmemory-policy allkeys-lru");
    wait_until("the warning is reported", async || {
        let ready = store.get("/readyz").await;
        ready.status == 200 && ready.json["notes"].to_string().contains("allkeys-lru")
    })
    .await;
}

pub(crate) async fn collections_never_contain_the_metadata_of_collections(store: &TestStore) {
    for prefix in ["", "near", "nearfield:", "nearfield:meta:docs"] {
        let schema = json!({"prefixes": [prefix], "fields": [flat(2, "l2")]});
        let rejected = store.put(&collection(DOCS), &schema).await.expect_error(422, "schema");
        assert_eq!(rejected["at"], "prefixes", "{rejected}");
    }
}
