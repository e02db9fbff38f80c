//! A Redis server that is unreachable, dies, hangs or returns empty, under a real `nearfield serve`.
//!
//! These tests check time limits because they are documented: every request is answered within 110 % of
//! the command timeout, with a status that states the cause.

mod cluster;
mod load;
mod program;

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testing::redis_stack::{Options, RedisStack};

use load::{Load, Response};
use program::Program;

/// 110 % of the command timeout.
const ANSWERED_WITHIN: Duration = Duration::from_millis(2200);

/// Time from a failure until the circuit breaker opens.
const OPENS_WITHIN: Duration = Duration::from_secs(3);

/// Time from the server's return until requests succeed.
const RECOVERS_WITHIN: Duration = Duration::from_secs(5);

/// Time from the server's first start until the program is ready.
const READY_WITHIN: Duration = Duration::from_secs(2);

const DOCUMENTS: usize = 200;

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

/// Checks what must hold for every response, whatever happens to Redis.
fn check_all(responses: &[Response]) {
    for response in responses {
        assert!(response.took <= ANSWERED_WITHIN, "too late: {response:?}");
        let is_explained = match response.status {
            200 | 201 => true,
            503 => response.code.starts_with("redis-") || response.code == "index-missing",
            _ => false,
        };
        assert!(is_explained, "{response:?}");
    }
}

/// Checks the responses to requests sent during the outage from `since` to `end`.
fn check_outage(what: &str, responses: &[Response], since: Instant, end: Instant) {
    let failed = |response: &&Response| response.status == 503;
    let during = || responses.iter().filter(|response| response.sent_at >= since && response.sent_at < end);
    let late = || during().filter(|response| response.sent_at >= since + OPENS_WITHIN);
    assert!(late().count() > 0, "no request was sent after the breaker opened");
    assert_eq!(late().find(|response| !failed(response)).map(|response| response.status), None);
    let slowest =
        |responses: &mut dyn Iterator<Item = &Response>| responses.map(|response| response.took).max();
    eprintln!(
        "{what}: {} requests, {} rejected, slowest {:?}; after the breaker opened, slowest {:?}",
        during().count(),
        during().filter(failed).count(),
        slowest(&mut during()),
        slowest(&mut late()),
    );
}

/// Checks that all requests succeed in time from shortly after `since` on.
fn recovered(what: &str, responses: &[Response], since: Instant) {
    let last_rejected =
        responses.iter().filter(|response| response.status == 503).map(|response| response.sent_at).max();
    let took = last_rejected.map_or(Duration::ZERO, |at| at.saturating_duration_since(since));
    eprintln!("{what}: last rejection {took:?} after the recovery");
    assert!(took <= RECOVERS_WITHIN, "{what}: {took:?}");
    let after =
        responses.iter().filter(|response| response.sent_at > since && response.status == 200).count();
    assert!(after > 0, "{what}: no request succeeded after the recovery");
}

#[test]
fn waits_for_a_redis_that_is_down_at_startup() {
    let secret = "correct-horse";
    let options = Options { password: Some(secret), ..Options::default() };
    let Some(mut redis) = RedisStack::reserve(options) else { return };
    let program = Program::serve(&redis.url());
    assert_eq!(program.get("/healthz").status, 200);
    let place = format!("127.0.0.1:{}", redis.port());
    let unready = program.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.json["notes"].to_string().contains(&place), "{}", unready.json);
    let schema = json!({"fields": [{"name": "title", "kind": "text"}]});
    for (request, reply) in [
        ("a list", program.get("/collections")),
        ("a search", program.get("/search?q=x")),
        ("a new collection", program.put("/collections/docs", &schema)),
        ("a write", program.post("/collections/docs/documents", &json!([{"id": "1"}]))),
    ] {
        assert_eq!(reply.status, 503, "{request}: {}", reply.json);
        assert!(reply.took <= ANSWERED_WITHIN, "{request} took {:?}", reply.took);
    }
    assert_eq!(program.get("/healthz").status, 200, "the program keeps running");
    assert_eq!(program.get("/metrics").status, 200, "metrics are available");

    redis.restart();
    let came = Instant::now();
    while program.get("/readyz").status != 200 {
        assert!(came.elapsed() <= READY_WITHIN, "not ready: {}", program.get("/readyz").json);
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("ready {:?} after the Redis", came.elapsed());
    fill(&program);
    assert_eq!(hits(&program), 10);
    let output = format!("{}{}", program.log(), unready.json);
    assert!(output.contains(&place) && !output.contains(secret), "{output}");
}

#[test]
fn reports_a_redis_that_dies_under_load_and_returns_empty() {
    let Some(mut redis) = RedisStack::plain() else { return };
    let program = Program::serve(&redis.url());
    program.ready();
    fill(&program);
    let load = Load::start(program.url());
    load.wait_for_answers(200);

    let killed = Instant::now();
    redis.kill();
    thread::sleep(OPENS_WITHIN + Duration::from_secs(2));
    assert_eq!(program.get("/healthz").status, 200);
    let unready = program.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.json["notes"].to_string().contains(&redis.port().to_string()), "{}", unready.json);
    let back = Instant::now();
    redis.restart();
    let returned = Instant::now();
    thread::sleep(RECOVERS_WITHIN + Duration::from_secs(1));
    let responses = load.stop();

    check_all(&responses);
    check_outage("killed", &responses, killed, back);
    recovered("killed", &responses, returned);
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
    program.ready();
    fill(&program);
    let load = Load::start(program.url());
    load.wait_for_answers(200);

    let paused = Instant::now();
    redis.pause();
    thread::sleep(Duration::from_secs(10));
    assert_eq!(program.get("/healthz").status, 200);
    assert_eq!(program.get("/readyz").status, 503);
    let back = Instant::now();
    redis.resume();
    let returned = Instant::now();
    thread::sleep(RECOVERS_WITHIN + Duration::from_secs(1));
    let responses = load.stop();

    check_all(&responses);
    check_outage("paused", &responses, paused, back);
    recovered("paused", &responses, returned);
    assert_eq!(program.get("/readyz").status, 200);
    assert_eq!(hits(&program), 10, "nothing was lost");
    assert_eq!(program.get("/collections/docs/count").json["count"], DOCUMENTS);
}
