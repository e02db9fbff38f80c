//! A Redis that others use too: what they wrote is found, and what is written is what they would.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    house::{DOCS, House, collection, document, flat, found, path},
    redis_stack::Reply as Answer,
    tiny_model::DIM,
};

/// Longer than anything here takes: beyond it the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A vector of the tiny model's length.
fn axis(position: usize) -> Vec<f32> {
    (0..DIM).map(|at| if at == position { 1.0 } else { 0.1 }).collect()
}

/// A command in words.
fn send(house: &House, words: &str) -> Answer {
    house.redis().command(&words.split_whitespace().collect::<Vec<_>>())
}

/// HSET, as any client does.
fn hset(house: &House, key: &str, fields: &[(&str, &[u8])]) {
    let mut words: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
    for (name, value) in fields {
        words.extend([name.as_bytes(), value]);
    }
    assert!(matches!(house.redis().command(&words), Answer::Integer(_)));
}

fn hash(house: &House, key: &str) -> BTreeMap<String, Vec<u8>> {
    let Answer::Array(flat) = house.redis().command(&["HGETALL", key]) else { panic!("no hash at {key}") };
    let text = |reply: &Answer| match reply {
        Answer::Text(bytes) => bytes.clone(),
        other => panic!("{other:?}"),
    };
    flat.chunks(2).map(|pair| (String::from_utf8(text(&pair[0])).unwrap(), text(&pair[1]))).collect()
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "{what} does not come");
        tokio::time::sleep(LOOK).await;
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

pub(crate) async fn an_index_made_by_others_is_adopted(house: &House) {
    let create = format!(
        "FT.CREATE {ARTICLES} ON HASH PREFIX 1 article: SCHEMA title TEXT content TEXT embedding VECTOR HNSW 12 TYPE \
         FLOAT32 DIM {DIM} DISTANCE_METRIC COSINE M 16 EF_CONSTRUCTION 200 EF_RUNTIME 50"
    );
    assert_eq!(send(house, &create), Answer::Text(b"OK".to_vec()));
    for number in 0..3 {
        let fields: [(&str, &[u8]); 3] =
            [("title", b"apple"), ("content", b"pear"), ("embedding", &bytes(&axis(number)))];
        hset(house, &format!("article:{number}"), &fields);
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
        let refused = house.put(&collection(ARTICLES), &schema).await.refused(409, "collection-exists");
        assert!(refused["detail"].as_str().unwrap().contains(difference), "{difference}: {refused}");
    }
    let adopted = house.put(&collection(ARTICLES), &schema(json!(["article:"]), article_fields())).await;
    assert!(matches!(adopted.status, 200 | 201), "{}", adopted.json);
    assert_eq!(adopted.json["documents"], 3);
    let answer = house.post(&path(ARTICLES, "search"), &json!({"vector": axis(2), "k": 1})).await.expect(200);
    assert_eq!(found(&answer)[0].id, "2");
    assert_eq!(found(&answer)[0].fields, json!({"title": "apple", "content": "pear"}));
}

pub(crate) async fn hashes_written_by_others_are_documents(house: &House) {
    house
        .make(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
    for number in 0..20_u8 {
        let place = bytes(&[f32::from(number), 0.0]);
        let fields: [(&str, &[u8]); 5] = [
            ("title", b"theirs"),
            ("tags", b" Red, two words "),
            ("year", b"2024"),
            ("place", &place),
            ("more", b"\xff\x00"),
        ];
        hset(house, &format!("{DOCS}:{{t}}{number}"), &fields);
    }
    house.settled(20).await;
    assert_eq!(house.ids(json!({"vector": [7, 0], "k": 1})).await, ["{t}7"]);
    assert_eq!((house.count("@tags:{two words} @year:[2024 2024]").await, house.count("*").await), (20, 20));
    assert_eq!(house.everything().await.len(), 20);
    let read = house.get(&document("{t}7")).await;
    let etag = read.etag.clone().unwrap();
    let expected = json!({
        "title": "theirs", "tags": ["Red", "two words"], "year": 2024, "more": {"base64": "/wA="}
    });
    assert_eq!(read.expect(200)["fields"], expected);
    // Their next write is seen by our guards.
    hset(house, &format!("{DOCS}:{{t}}7"), &[("title", b"changed")]);
    let change = async |etag: &str| {
        house.call("PATCH", &document("{t}7"), &[("if-match", etag)], Some(&json!({"year": 1}))).await
    };
    change(&etag).await.refused(412, "conflict");
    let etag = house.get(&document("{t}7")).await.etag.unwrap();
    change(&etag).await.expect(200);
    assert_eq!(house.get(&document("{t}7")).await.json["fields"]["title"], "changed");
    house.delete(&document("{t}7")).await.expect(204);
    assert_eq!(house.redis().command(&["EXISTS", &format!("{DOCS}:{{t}}7")]), Answer::Integer(0));
}

pub(crate) async fn what_is_written_is_what_others_would_write(house: &House) {
    house
        .make(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag", "separator": "|"},
            {"name": "year", "kind": "numeric"},
            {"name": "place", "kind": "vector", "dim": DIM, "embed": {"fields": ["title"], "model": "tiny"}},
        ]))
        .await;
    let own = json!({"title": "apple", "tags": ["a", "b c"], "year": 2024.5, "place": axis(1), "more": "x",
                     "ttl_s": 600});
    house.put(&document("{tag}1"), &own).await.expect(201);
    let key = format!("{DOCS}:{{tag}}1");
    let expected: BTreeMap<String, Vec<u8>> = [
        ("title", b"apple".to_vec()),
        ("tags", b"a|b c".to_vec()),
        ("year", b"2024.5".to_vec()),
        ("place", bytes(&axis(1))),
        ("more", b"x".to_vec()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(hash(house, &key), expected);
    assert!(
        matches!(house.redis().command(&["PTTL", &key]), Answer::Integer(left) if (500_000..=600_000).contains(&left))
    );
    // A computed vector stands in the hash as well; a field that is gone is gone.
    house.put(&document("{tag}1"), &json!({"title": "pear"})).await.expect(200);
    let now = hash(house, &key);
    assert_eq!(now.keys().collect::<Vec<_>>(), ["place", "title"]);
    assert_eq!(now["place"].len(), 4 * DIM);
    assert_eq!(house.redis().command(&["PTTL", &key]), Answer::Integer(-1));
}

pub(crate) async fn hashes_that_do_not_fit_are_told_and_spoil_nothing(house: &House) {
    house.make(json!([{"name": "year", "kind": "numeric"}, flat(2, "l2")])).await;
    house.load(&[json!({"id": "good", "place": [1, 2]})]).await;
    hset(house, &format!("{DOCS}:short"), &[("place", b"abc")]);
    hset(house, &format!("{DOCS}:word"), &[("year", b"soon"), ("place", &bytes(&[1.0, 2.0]))]);
    until("word of both failures", async || house.get(&collection(DOCS)).await.expect(200)["failures"] == 2)
        .await;
    let info = house.get(&collection(DOCS)).await.expect(200);
    assert!(info["last_failure"].as_str().unwrap().contains("word"), "{info}");
    assert_eq!(house.ids(json!({"vector": [1, 2]})).await, ["good"]);
    assert_eq!(house.count("*").await, 1);
}

pub(crate) async fn keys_of_other_types_are_left_alone(house: &House) {
    house.make(json!([flat(2, "l2")])).await;
    house.load(&[json!({"id": "1", "place": [1, 2]})]).await;
    send(house, &format!("SET {DOCS}:text hello"));
    send(house, &format!("RPUSH {DOCS}:list a b"));
    for id in ["text", "list"] {
        let read = house.get(&document(id)).await;
        read.refused(404, "document-not-found");
        house.put(&document(id), &json!({"place": [3, 4]})).await.refused(409, "key-taken");
        let batch = json!([{"id": id, "place": [3, 4]}, {"id": "1", "place": [1, 2]}]);
        let reply = house.post(&path(DOCS, "documents"), &batch).await.expect(200);
        assert_eq!((&reply["errors"], &reply["unchanged"]), (&json!(1), &json!(1)), "{reply}");
    }
    house.put(&document("empty"), &json!({})).await.refused(422, "field-value");
    assert_eq!(house.everything().await.len(), 1);
    assert_eq!(house.count("*").await, 1);
    house.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    assert_eq!(house.redis().command(&["GET", &format!("{DOCS}:text")]), Answer::Text(b"hello".to_vec()));
}

pub(crate) async fn hashes_without_a_vector_get_theirs(house: &House) {
    for number in 0..30 {
        let fields: [(&str, &[u8]); 2] = [("title", b"apple"), ("content", b"pear")];
        hset(house, &format!("article:{number}"), &fields);
    }
    let schema = json!({"prefixes": ["article:"], "fields": article_fields()});
    house.make_named(ARTICLES, schema).await;
    until("the last vector", async || {
        let search = json!({"text": "apple pear", "k": 100, "fields": []});
        let answer = house.post(&path(ARTICLES, "search"), &search).await.expect(200);
        found(&answer).len() == 30
    })
    .await;
    assert_eq!(hash(house, "article:29")["embedding"].len(), 4 * DIM);
}

pub(crate) async fn what_a_redis_cannot_hold_is_refused_with_the_reason(house: &House) {
    let with = |option: &str, value: &str| {
        let mut field = flat(8, "l2");
        field[option] = json!(value);
        json!({"fields": [field]})
    };
    for schema in [with("type", "INT8"), with("quantization", "int8"), with("quantization", "int4")] {
        let refused = house.put(&collection(DOCS), &schema).await;
        assert_eq!(refused.status, 422, "{}", refused.json);
        assert!(refused.json["detail"].as_str().unwrap().contains("Redis"), "{}", refused.json);
    }
    house.make(json!([flat(2, "l2")])).await;
    let rebuild =
        house.put(&format!("{}?rebuild=true", collection(DOCS)), &json!({"fields": [flat(3, "l2")]})).await;
    assert!((400..500).contains(&rebuild.status), "{}", rebuild.json);
    assert!(rebuild.json["detail"].as_str().unwrap().contains("documents=keep"), "{}", rebuild.json);
}

pub(crate) async fn what_docs_say_a_redis_does_otherwise_it_does(house: &House) {
    house
        .make(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "place", "kind": "vector", "dim": DIM, "embed": {"fields": ["title"], "model": "tiny"}},
        ]))
        .await;
    // Only A to Z are folded.
    house.put(&document("1"), &json!({"title": "apple", "tags": ["\u{c4}RGER"]})).await.expect(201);
    assert_eq!(house.count("@tags:{\u{c4}rger}").await, 1);
    assert_eq!(house.count("@tags:{\u{e4}rger}").await, 0);
    house.put(&document("2"), &json!({"title": "x", "tags": ["a\u{0}b"]})).await.refused(422, "field-value");
    // The ETag is the content's.
    let etag = async || house.get(&document("1")).await.etag.unwrap();
    let first = etag().await;
    house.patch(&document("1"), &json!({"more": "x"})).await.expect(200);
    assert_ne!(etag().await, first);
    house.patch(&document("1"), &json!({"more": null})).await.expect(200);
    assert_eq!(etag().await, first);
    // A vector of one's own goes with the text it stood for.
    house.put(&document("1"), &json!({"title": "apple", "place": axis(3)})).await.expect(200);
    assert!(house.search(json!({"vector": axis(3)})).await[0].distance < 1e-4);
    house.patch(&document("1"), &json!({"title": "pear"})).await.expect(200);
    assert!(house.search(json!({"vector": axis(3)})).await[0].distance > 0.1);
    // A key has one field of a name.
    let other = json!({"prefixes": [format!("{DOCS}:")], "fields": [flat(2, "l2")]});
    house.put(&collection("other"), &other).await.refused(409, "schema-conflict");
}

pub(crate) async fn a_full_redis_refuses_writes_and_reads_on(house: &House) {
    house.make(json!([flat(2, "l2")])).await;
    house.load(&[json!({"id": "1", "place": [1, 2]})]).await;
    send(house, "CONFIG SET maxmemory 1");
    house.put(&document("2"), &json!({"place": [3, 4]})).await.refused(507, "redis-full");
    let batch =
        json!([{"id": "2", "place": [3, 4]}, {"id": "1", "place": [1, 2]}, {"id": "3", "place": [3]}]);
    let reply = house.post(&path(DOCS, "documents"), &batch).await.expect(200);
    let fates: Vec<&Value> =
        reply["results"].as_array().unwrap().iter().map(|result| &result["error"]["code"]).collect();
    assert_eq!(fates, [&json!("redis-full"), &Value::Null, &json!("vector-dimensions")], "{reply}");
    assert_eq!(house.ids(json!({"vector": [1, 2]})).await, ["1"]);
    house.get(&document("1")).await.expect(200);
    house.delete(&document("1")).await.expect(204);
    send(house, "CONFIG SET maxmemory 0");
    house.put(&document("2"), &json!({"place": [3, 4]})).await.expect(201);
}

pub(crate) async fn a_redis_that_may_drop_documents_is_warned_of(house: &House) {
    send(house, "CONFIG SET maxmemory-policy allkeys-lru");
    until("a warning", async || {
        let ready = house.get("/readyz").await;
        ready.status == 200 && ready.json["notes"].to_string().contains("allkeys-lru")
    })
    .await;
}

pub(crate) async fn no_collection_takes_in_what_is_kept_about_collections(house: &House) {
    for prefix in ["", "near", "nearfield:", "nearfield:meta:docs"] {
        let schema = json!({"prefixes": [prefix], "fields": [flat(2, "l2")]});
        let refused = house.put(&collection(DOCS), &schema).await.refused(422, "schema");
        assert_eq!(refused["at"], "prefixes", "{refused}");
    }
}
