//! Commands with `--store redis://...`.

use assert_cmd::assert::OutputAssertExt as _;
use serde_json::{Value, json};
use testing::{
    real_model,
    redis_stack::{RedisOptions, RedisStack, Reply},
};

use crate::program::{TestHome, output};

/// Documents as JSON Lines.
fn documents(count: usize) -> String {
    let document = |number: usize| {
        let color = if number.is_multiple_of(2) { "red" } else { "blue" };
        format!(
            "{}\n",
            json!({"id": format!("thing/{number}"), "name": format!("Thing {number}"), "color": [color]})
        )
    };
    (0..count).map(document).collect()
}

/// An index without a model, as another Redis client would create it.
fn create_index(redis: &RedisStack) {
    let create = "FT.CREATE things ON HASH PREFIX 1 things: SCHEMA name TEXT color TAG";
    let words: Vec<&str> = create.split(' ').collect();
    assert_eq!(redis.command(&words), Reply::Text(b"OK".to_vec()));
}

#[test]
fn writes_reads_and_deletes_documents_in_redis() {
    let secret = "correct-horse";
    let options = RedisOptions { user: Some(("ada", secret)), ..RedisOptions::default() };
    let Some(redis) = RedisStack::start(options) else { return };
    let Some(models) = real_model::models() else { return };
    let models = models.to_str().unwrap();
    let home = TestHome::new();
    let store = redis.url();
    let with = |args: &[&str]| {
        let options = ["--store", store.as_str(), "--models-dir", models];
        [args, &options].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ok = |args: &[&str]| home.ok(&with(args).iter().map(String::as_str).collect::<Vec<_>>());
    let json = |args: &[&str]| home.json(&with(args).iter().map(String::as_str).collect::<Vec<_>>());

    let file = home.write(
        "articles.csv",
        "id,title,content\n1,Reset your password,Choose forgot password\n2,Invoices,Download your invoice as PDF\n\
         3,Delete an account,All data goes\n",
    );
    let out = ok(&["index", &file]);
    assert_eq!(out, "rows in 3 = indexed 3 + unchanged 0 + rejected 0\n");
    assert_eq!(ok(&["index", &file]), "rows in 3 = indexed 0 + unchanged 3 + rejected 0\n");
    let response = json(&["search", "I forgot my password"]);
    assert_eq!(response["results"][0]["id"], "1", "{response}");
    let collections = json(&["collections"]);
    assert_eq!(collections["collections"][0]["documents"], 3, "{collections}");
    assert!(json(&["stats"])["documents"].as_u64().unwrap() >= 3, "the number of keys");
    assert_eq!(json(&["get", "2"])["fields"]["title"], "Invoices");
    assert_eq!(ok(&["export"]).lines().count(), 3);
    assert_eq!(ok(&["delete", "2"]), "deleted 1\n");
    assert_eq!(ok(&["delete", "--filter", "*", "--yes"]), "deleted 2\n");
    assert!(!home.path("data").exists(), "the data directory is not used");
    let output = home.run(&["stats", "--store", &store, "--log", "trace"]);
    assert!(!format!("{output:?}").contains(secret), "{output:?}");
}

#[test]
fn several_processes_share_a_redis() {
    let Some(redis) = RedisStack::plain() else { return };
    create_index(&redis);
    let home = TestHome::new();
    let store = redis.url();
    let server = home.serve(&["--store", &store]);
    let url = &server.url;
    assert!(!home.path("data/server.json").exists(), "no process has exclusive use of Redis");
    // Nearfield must know the collection before documents are indexed.
    let schema = json!({"fields": [{"name": "name", "kind": "text"}, {"name": "color", "kind": "tag"}]});
    let adopted = ureq::put(format!("{url}/collections/things"))
        .content_type("application/json")
        .send(schema.to_string())
        .unwrap();
    assert!(adopted.status().is_success());

    let file = home.write("things.jsonl", documents(20));
    let out = home.ok(&["index", &file, "-c", "things", "--store", &store]);
    assert_eq!(out, "rows in 20 = indexed 20 + unchanged 0 + rejected 0\n");
    let count: Value = ureq::get(format!("{url}/collections/things/count?filter=%40color%3A%7Bred%7D"))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .map(|text| serde_json::from_str(&text).unwrap())
        .unwrap();
    assert_eq!(count["count"], 10, "the server finds what the other process wrote");
}

#[test]
fn reports_an_unusable_store_without_its_password() {
    let home = TestHome::new();
    let secret = "correct-horse";
    let rejected = home.fails(
        2,
        &["stats", "--store", &format!("postgres://ada:{secret}@127.0.0.1/0")],
        &["--store", "redis://", "rediss://", "postgres://..."],
    );
    assert!(!rejected.err.contains(secret), "{rejected:?}");
    let Some(redis) = RedisStack::reserve(RedisOptions { password: Some(secret), ..RedisOptions::default() })
    else {
        return;
    };
    let address = format!("127.0.0.1:{}", redis.port());
    let unreachable = home.fails(4, &["collections", "--store", &redis.url()], &[&address]);
    assert!(!unreachable.err.contains(secret), "{unreachable:?}");
    let Some(redis) = RedisStack::start(RedisOptions { password: Some(secret), ..RedisOptions::default() })
    else {
        return;
    };
    let wrong_url = redis.url().replace(secret, "battery-staple");
    let rejected = home.fails(4, &["collections", "--store", &wrong_url], &["the user and password"]);
    assert!(!rejected.err.contains("battery-staple"), "{rejected:?}");
}

#[test]
fn eval_drops_its_temporary_collection() {
    let Some(redis) = RedisStack::plain() else { return };
    let Some(models) = real_model::models() else { return };
    let home = TestHome::new();
    home.write(
        "tests/corpus.jsonl",
        "{\"id\":\"1\",\"title\":\"Reset your password\",\"text\":\"Choose forgot password.\"}\n\
         {\"id\":\"2\",\"title\":\"Invoices\",\"text\":\"Download them as PDF.\"}\n",
    );
    home.write(
        "tests/queries.jsonl",
        "{\"id\":\"a\",\"text\":\"cannot log in\"}\n{\"id\":\"b\",\"text\":\"where is my bill\"}\n",
    );
    home.write("tests/qrels.tsv", "a\t1\t1\nb\t2\t1\n");
    let store = redis.url();
    let options = ["--store", &store, "--models-dir", models.to_str().unwrap()];
    let measured = home.json(&[&["eval", "tests", "--exact"][..], &options].concat());
    assert_eq!((&measured["documents"], &measured["ndcg_at_10"]), (&json!(2), &json!(1.0)), "{measured}");
    assert_eq!(redis.command(&["FT._LIST"]), Reply::Array(vec![]), "the temporary collection was dropped");
    home.fails(2, &[&["eval", "tests", "--keep", "kept"][..], &options].concat(), &["--keep"]);
}

#[test]
fn connects_to_redis_over_tls_if_the_certificate_is_trusted() {
    let secret = "correct-horse";
    let options = RedisOptions { tls: true, password: Some(secret), ..RedisOptions::default() };
    let Some(redis) = RedisStack::start(options) else { return };
    let home = TestHome::new();
    let args = ["collections", "--store", &redis.url()];
    let trusted = output(home.command(&args).env("SSL_CERT_FILE", redis.certificate()).assert());
    assert_eq!((trusted.code, trusted.out.as_str()), (Some(0), "no collections\n"), "{trusted:?}");
    let rejected = output(home.command(&args).env_remove("SSL_CERT_FILE").assert());
    assert_eq!(rejected.code, Some(4), "{rejected:?}");
    assert!(rejected.err.contains("certificate") && !rejected.err.contains(secret), "{rejected:?}");
}
