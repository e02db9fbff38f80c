//! A Redis server that is unreachable, dies, hangs or returns empty, under a real `nearfield serve`.
//!
//! These tests check time limits because they are documented: every request is answered within 110 % of
//! the command timeout, with a status that states the cause.

mod cluster;
mod load;
mod program;

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testing::redis_stack::{RedisOptions, RedisStack};

use load::{Client, Load, LoadReport, Sample};
use program::{Program, post, put};

/// Maximum time to a response: 110 % of the command timeout.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(2200);

/// Maximum time from a failure until the circuit breaker opens.
const BREAKER_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum time from the server's return until requests succeed.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time from the server's first start until the program is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

const DOCUMENTS: usize = 200;

const CLIENTS: usize = 8;

fn fill(program: &Program) {
    fill_with(program, "hnsw", DOCUMENTS);
}

/// Creates the collection with this many documents.
fn fill_with(program: &Program, algorithm: &str, documents: usize) {
    let schema = json!({"fields": [
        {"name": "rank", "kind": "numeric"},
        {"name": "place", "kind": "vector", "dim": 4, "metric": "l2", "algorithm": algorithm},
    ]});
    assert_eq!(program.put("/collections/docs", &schema).status, 201);
    let documents: Vec<Value> = (0..documents)
        .map(|number| json!({"id": number.to_string(), "rank": number, "place": [number, 0, 0, 1]}))
        .collect();
    let loaded = program.post("/collections/docs/documents", &json!({"documents": documents}));
    assert_eq!((loaded.status, &loaded.json["errors"]), (200, &json!(0)), "{}", loaded.json);
}

fn hits(program: &Program) -> usize {
    let reply = program.post("/collections/docs/search", &json!({"vector": [0, 0, 0, 1], "k": 10}));
    assert_eq!(reply.status, 200, "{}", reply.json);
    reply.json["results"].as_array().unwrap().len()
}

/// Starts clients, half of which search and half of which write, and waits until requests succeed.
fn start_load(program: &Program) -> Load {
    let clients = (0..CLIENTS).map(|client| -> Client {
        let collection = format!("{}/collections/docs", program.url());
        if client.is_multiple_of(2) {
            Box::new(move |agent, number| {
                let search = json!({"vector": [number % DOCUMENTS, 0, 0, 1], "k": 10, "fields": []});
                post(agent, &format!("{collection}/search"), &search)
            })
        } else {
            Box::new(move |agent, number| {
                let id = (client * 10 + number % 10) % DOCUMENTS;
                let document = json!({"rank": number, "place": [number, 0, 0, 1]});
                put(agent, &format!("{collection}/documents/{id}"), &document)
            })
        }
    });
    let load = Load::start(clients.collect());
    load.wait_for_successes(200);
    load
}

/// Checks the responses before, during and after an outage; Redis was available again from `available` on.
fn check(what: &str, report: &LoadReport, outage: Range<Instant>, available: Instant) {
    report.check(|code| code.starts_with("redis-") || code == "index-missing");
    report.print_summary(what, outage.start);
    // Requests in flight when Redis returns may succeed.
    let (opened, end) = (outage.start + BREAKER_TIMEOUT, outage.end);
    let is_after_opening = |sample: &&Sample| sample.sent_at >= opened && sample.sent_at + sample.took < end;
    let after_opening: Vec<&Sample> = report.samples.iter().filter(is_after_opening).collect();
    assert!(!after_opening.is_empty(), "no request was sent after the breaker opened");
    let succeeded = after_opening.iter().find(|sample| sample.status != 503);
    assert!(succeeded.is_none(), "{what}: {succeeded:?}");
    let slowest = after_opening.iter().map(|sample| sample.took).max().unwrap_or_default();
    let recovery = report.last_rejected(available);
    eprintln!("{what}: slowest response after the breaker opened {slowest:?}; recovery took {recovery:?}");
    assert!(recovery <= RECOVERY_TIMEOUT, "{what}: {recovery:?}");
    let recovered = report.samples.iter().any(|sample| sample.sent_at > available && sample.status == 200);
    assert!(recovered, "{what}: no request succeeded after the recovery");
}

#[test]
fn waits_for_a_redis_that_is_down_at_startup() {
    let secret = "correct-horse";
    let options = RedisOptions { password: Some(secret), ..RedisOptions::default() };
    let Some(mut redis) = RedisStack::reserve(options) else { return };
    let program = Program::serve(&redis.url());
    assert_eq!(program.get("/healthz").status, 200);
    let address = format!("127.0.0.1:{}", redis.port());
    let unready = program.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.json["notes"].to_string().contains(&address), "{}", unready.json);
    let schema = json!({"fields": [{"name": "title", "kind": "text"}]});
    for (request, reply) in [
        ("a list", program.get("/collections")),
        ("a search", program.get("/search?q=x")),
        ("a new collection", program.put("/collections/docs", &schema)),
        ("a write", program.post("/collections/docs/documents", &json!([{"id": "1"}]))),
    ] {
        assert_eq!(reply.status, 503, "{request}: {}", reply.json);
        assert!(reply.took <= RESPONSE_TIMEOUT, "{request} took {:?}", reply.took);
    }
    assert_eq!(program.get("/healthz").status, 200, "the program keeps running");
    assert_eq!(program.get("/metrics").status, 200, "metrics are available");

    redis.restart();
    let restarted = Instant::now();
    while program.get("/readyz").status != 200 {
        assert!(restarted.elapsed() <= READY_TIMEOUT, "not ready: {}", program.get("/readyz").json);
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("ready {:?} after Redis", restarted.elapsed());
    fill(&program);
    assert_eq!(hits(&program), 10);
    let output = format!("{}{}", program.log(), unready.json);
    assert!(output.contains(&address) && !output.contains(secret), "{output}");
}

#[test]
fn reports_a_redis_that_dies_under_load_and_returns_empty() {
    let Some(mut redis) = RedisStack::plain() else { return };
    let program = Program::serve(&redis.url());
    program.wait_until_ready();
    fill(&program);
    let load = start_load(&program);

    let killed = Instant::now();
    redis.kill();
    thread::sleep(BREAKER_TIMEOUT + Duration::from_secs(2));
    assert_eq!(program.get("/healthz").status, 200);
    let unready = program.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.json["notes"].to_string().contains(&redis.port().to_string()), "{}", unready.json);
    let restarting = Instant::now();
    redis.restart();
    let restarted = Instant::now();
    thread::sleep(RECOVERY_TIMEOUT + Duration::from_secs(1));
    let report = load.stop();

    check("killed", &report, killed..restarting, restarted);
    // Lost data is reported, never hidden behind an empty result.
    let ready = program.get("/readyz");
    let notes = ready.json["notes"].to_string();
    assert!(notes.contains("docs"), "{notes}");
    let info = program.get("/collections/docs");
    assert_eq!(info.status, 200, "{}", info.json);
    let after = program.put("/collections/docs/documents/new", &json!({"place": [0, 0, 0, 1]}));
    assert_eq!(after.status, 201, "{}", after.json);
    assert!(hits(&program) >= 1);
}

#[test]
fn a_hung_redis_does_not_block_requests() {
    let Some(redis) = RedisStack::plain() else { return };
    let program = Program::serve(&redis.url());
    program.wait_until_ready();
    fill(&program);
    let load = start_load(&program);

    let paused = Instant::now();
    redis.pause();
    thread::sleep(Duration::from_secs(10));
    assert_eq!(program.get("/healthz").status, 200);
    assert_eq!(program.get("/readyz").status, 503);
    let resuming = Instant::now();
    redis.resume();
    let resumed = Instant::now();
    thread::sleep(RECOVERY_TIMEOUT + Duration::from_secs(1));
    let report = load.stop();

    check("paused", &report, paused..resuming, resumed);
    assert_eq!(program.get("/readyz").status, 200);
    assert_eq!(hits(&program), 10, "nothing was lost");
    assert_eq!(program.get("/collections/docs/count").json["count"], DOCUMENTS);
}
