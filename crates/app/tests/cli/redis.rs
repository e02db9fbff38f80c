//! Commands with `--store redis://...`.

use std::process::Stdio;

use assert_cmd::assert::OutputAssertExt as _;
use serde_json::{Value, json};
use testing::{
    real_model,
    redis_stack::{Options, RedisStack, Reply},
};

use crate::program::{TestHome, output};

fn things(count: usize) -> String {
    let thing = |number: usize| {
        let color = if number.is_multiple_of(2) { "red" } else { "blue" };
        format!(
            "{}\n",
            json!({"id": format!("thing/{number}"), "name": format!("Thing {number}"), "color": [color]})
        )
    };
    (0..count).map(thing).collect()
}

/// An index without a model, as another Redis client would create it.
fn make_index(redis: &RedisStack) {
    let create = "FT.CREATE things ON HASH PREFIX 1 things: SCHEMA name TEXT color TAG";
    let words: Vec<&str> = create.split(' ').collect();
    assert_eq!(redis.command(&words), Reply::Text(b"OK".to_vec()));
}

#[test]
fn writes_reads_and_deletes_documents_in_redis() {
    let secret = "correct-horse";
    let options = Options { user: Some(("ada", secret)), ..Options::default() };
    let Some(redis) = RedisStack::start(options) else { return };
    let Some(models) = real_model::models() else { return };
    let models = models.to_str().unwrap();
    let home = TestHome::new();
    let store = redis.url();
    let with = |args: &[&str]| {
        let place = ["--store", store.as_str(), "--models-dir", models];
        [args, &place].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
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
    let answer = json(&["search", "I forgot my password"]);
    assert_eq!(answer["results"][0]["id"], "1", "{answer}");
    let collections = json(&["collections"]);
    assert_eq!(collections["collections"][0]["documents"], 3, "{collections}");
    assert!(json(&["stats"])["documents"].as_u64().unwrap() >= 3, "every key counts");
    assert_eq!(json(&["get", "2"])["fields"]["title"], "Invoices");
    assert_eq!(ok(&["export"]).lines().count(), 3);
    assert_eq!(ok(&["delete", "2"]), "deleted 1\n");
    assert_eq!(ok(&["delete", "--filter", "*", "--yes"]), "deleted 2\n");
    assert!(!home.path("data").exists(), "the data directory has no part in it");
    let output = home.run(&["stats", "--store", &store, "--log", "trace"]);
    assert!(!format!("{output:?}").contains(secret), "{output:?}");
}

#[test]
fn several_processes_share_a_redis() {
    let Some(redis) = RedisStack::plain() else { return };
    make_index(&redis);
    let home = TestHome::new();
    let store = redis.url();
    let mut server = home
        .command(&["serve", "--port", "0", "--store", &store])
        .env("NO_COLOR", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "the server ended");
    }
    assert!(!home.path("data/server.json").exists(), "the Redis is nobody's alone");
    // Nearfield must know the collection before documents are indexed.
    let schema = json!({"fields": [{"name": "name", "kind": "text"}, {"name": "color", "kind": "tag"}]});
    let place = line.find("http://").unwrap_or_else(|| panic!("{line}"));
    let url = line[place..].trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let adopted = ureq::put(format!("{url}/collections/things"))
        .content_type("application/json")
        .send(schema.to_string())
        .unwrap();
    assert!(adopted.status().is_success());

    let file = home.write("things.jsonl", things(20));
    let out = home.ok(&["index", &file, "-c", "things", "--store", &store]);
    assert_eq!(out, "rows in 20 = indexed 20 + unchanged 0 + rejected 0\n");
    let count: Value = ureq::get(format!("{url}/collections/things/count?filter=%40color%3A%7Bred%7D"))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .map(|text| serde_json::from_str(&text).unwrap())
        .unwrap();
    assert_eq!(count["count"], 10, "what one wrote the other finds");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn reports_an_unusable_store_without_its_password() {
    let home = TestHome::new();
    let secret = "correct-horse";
    let refused = home.fails(
        2,
        &["stats", "--store", &format!("postgres://ada:{secret}@127.0.0.1/0")],
        &["--store", "redis://", "rediss://", "postgres://..."],
    );
    assert!(!refused.err.contains(secret), "{refused:?}");
    let Some(redis) = RedisStack::reserve(Options { password: Some(secret), ..Options::default() }) else {
        return;
    };
    let place = format!("127.0.0.1:{}", redis.port());
    let absent = home.fails(4, &["collections", "--store", &redis.url()], &[&place]);
    assert!(!absent.err.contains(secret), "{absent:?}");
    let Some(redis) = RedisStack::start(Options { password: Some(secret), ..Options::default() }) else {
        return;
    };
    let wrong = redis.url().replace(secret, "battery-staple");
    let refused = home.fails(4, &["collections", "--store", &wrong], &["the user and password"]);
    assert!(!refused.err.contains("battery-staple"), "{refused:?}");
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
    let place = ["--store", &store, "--models-dir", models.to_str().unwrap()];
    let measured = home.json(&[&["eval", "tests", "--exact"][..], &place].concat());
    assert_eq!((&measured["documents"], &measured["ndcg_at_10"]), (&json!(2), &json!(1.0)), "{measured}");
    assert_eq!(redis.command(&["FT._LIST"]), Reply::Array(vec![]), "the collection is gone again");
    home.fails(2, &[&["eval", "tests", "--keep", "kept"][..], &place].concat(), &["--keep"]);
}

#[test]
fn connects_to_redis_over_tls_if_the_certificate_is_trusted() {
    let secret = "correct-horse";
    let options = Options { tls: true, password: Some(secret), ..Options::default() };
    let Some(redis) = RedisStack::start(options) else { return };
    let home = TestHome::new();
    let args = ["collections", "--store", &redis.url()];
    let trusted = output(home.command(&args).env("SSL_CERT_FILE", redis.certificate()).assert());
    assert_eq!((trusted.code, trusted.out.as_str()), (Some(0), "no collections\n"), "{trusted:?}");
    let refused = output(home.command(&args).env_remove("SSL_CERT_FILE").assert());
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.err.contains("certificate") && !refused.err.contains(secret), "{refused:?}");
}
