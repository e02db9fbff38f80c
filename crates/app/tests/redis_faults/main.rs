//! A Redis that is not there, dies, stands still or comes back empty, under a real `nearfield serve`.
//!
//! Here bounds on time decide, since they are what is promised: every request is answered within the
//! command timeout and a tenth, by a status that says what happened.

#[path = "../redis_cluster/mod.rs"]
mod redis_cluster;
#[path = "../redis_stack/mod.rs"]
mod redis_stack;

mod cluster;
mod load;
mod program;

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use load::{Answered, Load};
use program::Program;
use redis_stack::{Options, RedisStack};

/// The command timeout and a tenth.
const ANSWERED_WITHIN: Duration = Duration::from_millis(2200);

/// From a failure to the breaker's answers.
const OPENS_WITHIN: Duration = Duration::from_secs(3);

/// From the Redis's return to answers.
const RECOVERS_WITHIN: Duration = Duration::from_secs(5);

/// From the first coming of a Redis to readiness.
const READY_WITHIN: Duration = Duration::from_secs(2);

const DOCUMENTS: usize = 200;

fn fill(program: &Program) {
    fill_with(program, "hnsw", DOCUMENTS);
}

/// Makes the collection, with so many documents on a line.
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

/// What is asked of every answer, whatever happened to the Redis.
fn check_all(answered: &[Answered]) {
    for answer in answered {
        assert!(answer.took <= ANSWERED_WITHIN, "too late: {answer:?}");
        let told = match answer.status {
            200 | 201 => true,
            503 => answer.code.starts_with("redis-") || answer.code == "index-missing",
            _ => false,
        };
        assert!(told, "{answer:?}");
    }
}

/// Checks the answers to what was asked while the Redis was away, from `since` to `end`.
fn check_outage(what: &str, answered: &[Answered], since: Instant, end: Instant) {
    let failed = |answer: &&Answered| answer.status == 503;
    let during = || answered.iter().filter(|answer| answer.asked >= since && answer.asked < end);
    let late = || during().filter(|answer| answer.asked >= since + OPENS_WITHIN);
    assert!(late().count() > 0, "nothing was asked after the breaker had its time");
    assert_eq!(late().find(|answer| !failed(answer)).map(|answer| answer.status), None);
    let slowest = |answers: &mut dyn Iterator<Item = &Answered>| answers.map(|answer| answer.took).max();
    eprintln!(
        "{what}: {} requests, {} refused, slowest {:?}; once the breaker had its time, slowest {:?}",
        during().count(),
        during().filter(failed).count(),
        slowest(&mut during()),
        slowest(&mut late()),
    );
}

/// When requests were answered again for good after `since`: neither late nor refused from then on.
fn recovered(what: &str, answered: &[Answered], since: Instant) {
    let last_refused = answered.iter().filter(|answer| answer.status == 503).map(|answer| answer.asked).max();
    let took = last_refused.map_or(Duration::ZERO, |at| at.saturating_duration_since(since));
    eprintln!("{what}: the last refusal came {took:?} after the return");
    assert!(took <= RECOVERS_WITHIN, "{what}: {took:?}");
    let after = answered.iter().filter(|answer| answer.asked > since && answer.status == 200).count();
    assert!(after > 0, "{what}: nothing was answered again");
}

#[test]
fn a_redis_that_is_not_there_at_the_start_is_waited_for() {
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
    for (asked, reply) in [
        ("a list", program.get("/collections")),
        ("a search", program.get("/search?q=x")),
        ("a new collection", program.put("/collections/docs", &schema)),
        ("a write", program.post("/collections/docs/documents", &json!([{"id": "1"}]))),
    ] {
        assert_eq!(reply.status, 503, "{asked}: {}", reply.json);
        assert!(reply.took <= ANSWERED_WITHIN, "{asked} took {:?}", reply.took);
    }
    assert_eq!(program.get("/healthz").status, 200, "it runs on");
    assert_eq!(program.get("/metrics").status, 200, "it can be watched");

    redis.restart();
    let came = Instant::now();
    while program.get("/readyz").status != 200 {
        assert!(came.elapsed() <= READY_WITHIN, "not ready: {}", program.get("/readyz").json);
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("ready {:?} after the Redis", came.elapsed());
    fill(&program);
    assert_eq!(hits(&program), 10);
    let said = format!("{}{}", program.log(), unready.json);
    assert!(said.contains(&place) && !said.contains(secret), "{said}");
}

#[test]
fn a_redis_that_dies_under_load_and_comes_back_empty_is_told() {
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
    let answered = load.stop();

    check_all(&answered);
    check_outage("killed", &answered, killed, back);
    recovered("killed", &answered, returned);
    // What was lost is told, never an empty answer in silence.
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
fn a_redis_that_stands_still_keeps_nobody_waiting() {
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
    let answered = load.stop();

    check_all(&answered);
    check_outage("paused", &answered, paused, back);
    recovered("paused", &answered, returned);
    assert_eq!(program.get("/readyz").status, 200);
    assert_eq!(hits(&program), 10, "nothing was lost");
    assert_eq!(program.get("/collections/docs/count").json["count"], DOCUMENTS);
}
