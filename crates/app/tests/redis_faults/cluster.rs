//! A Redis Cluster whose servers die, hang, lose their connections or migrate slots, under a real
//! `nearfield serve`. In every case a response is either correct or an error.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testing::{
    redis_cluster::{ClusterOptions, RedisCluster},
    redis_stack::Reply,
};

use crate::{
    BREAKER_TIMEOUT, READY_TIMEOUT, RECOVERY_TIMEOUT, RESPONSE_TIMEOUT, fill_with,
    load::{Client, Load, LoadReport},
    program::{Program, Response, post, put},
};

/// Shorter than the default, so that a failover takes a few seconds.
const NODE_TIMEOUT_MS: u32 = 1500;

/// Without full coverage, the other shards remain available while one is down.
const OPTIONS: ClusterOptions = ClusterOptions {
    node_timeout_ms: NODE_TIMEOUT_MS,
    append_only: false,
    arguments: &["--cluster-require-full-coverage", "no"],
};

/// Time Nearfield may take to recover, beyond the cluster's own time.
const RECOVERY_MARGIN: Duration = Duration::from_secs(3);

const DOCUMENTS: usize = 300;

const SEARCHERS: usize = 3;
const WRITERS: usize = 2;

/// Hits per search. The correct ones are the documents with the lowest ids.
const K: usize = 10;

/// A cluster, and a ready program with documents in it.
fn start_filled(flags: &[&str]) -> Option<(RedisCluster, Program)> {
    let cluster = RedisCluster::with(OPTIONS)?;
    let program = Program::serve_with(&cluster.url(), flags);
    program.wait_until_ready();
    fill_with(&program, "flat", DOCUMENTS);
    Some((cluster, program))
}

fn search_body(allow_partial: bool) -> Value {
    json!({"vector": [0, 0, 0, 1], "k": K, "fields": ["rank"], "allow_partial": allow_partial})
}

/// The ids of the hits, whose fields are checked.
fn ids(response: &Value) -> Vec<usize> {
    let id = |hit: &Value| {
        let id: usize = hit["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(hit["fields"]["rank"], id, "{hit}");
        id
    };
    response["results"].as_array().unwrap().iter().map(id).collect()
}

fn expected_ids() -> Vec<usize> {
    (0..K).collect()
}

/// The numbers of documents whose writes were acknowledged.
type Acknowledged = Arc<Mutex<BTreeSet<usize>>>;

/// Starts clients that write their own documents and clients that search, and waits until requests succeed. A wrong
/// result fails the test.
fn start_load(program: &Program) -> (Load, Acknowledged) {
    let acknowledged = Acknowledged::default();
    let clients = (0..WRITERS + SEARCHERS).map(|client| -> Client {
        let collection = format!("{}/collections/docs", program.url());
        let acknowledged = acknowledged.clone();
        if client < WRITERS {
            Box::new(move |agent, number| {
                // Far from the vectors of all searches.
                let number = 1000 + WRITERS * number + client;
                let document = json!({"rank": number, "place": [number, 9, 9, 9]});
                let response = put(agent, &format!("{collection}/documents/{number}"), &document);
                if response.status < 300 {
                    acknowledged.lock().unwrap().insert(number);
                }
                response
            })
        } else {
            Box::new(move |agent, _| {
                let response = post(agent, &format!("{collection}/search"), &search_body(false));
                if response.status == 200 {
                    assert_eq!(ids(&response.json), expected_ids(), "wrong result: {}", response.json);
                }
                response
            })
        }
    });
    let load = Load::start(clients.collect());
    load.wait_for_successes(100);
    (load, acknowledged)
}

/// Stops the clients, checks that every error states its cause, and prints a summary.
fn stop_and_check(load: Load, what: &str, since: Instant) -> LoadReport {
    let report = load.stop();
    report.check(|code| code.starts_with("redis-") || code.starts_with("index-"));
    report.print_summary(what, since);
    report
}

/// The acknowledged documents that do not exist once all shards are available.
fn lost(acknowledged: &Acknowledged, program: &Program) -> Vec<usize> {
    program.wait_until_ready();
    let exists = |number: &usize| {
        let response = program.get(&format!("/collections/docs/documents/{number}"));
        assert!(matches!(response.status, 200 | 404), "{}", response.json);
        response.status == 200
    };
    acknowledged.lock().unwrap().iter().filter(|number| !exists(number)).copied().collect()
}

fn search(program: &Program, allow_partial: bool) -> Response {
    program.post("/collections/docs/search", &search_body(allow_partial))
}

/// Waits until a search is rejected.
fn wait_until_rejected(program: &Program) -> Response {
    let deadline = Instant::now() + BREAKER_TIMEOUT;
    loop {
        let response = search(program, false);
        if response.status == 503 {
            return response;
        }
        assert!(Instant::now() < deadline, "a shard is down, but no search is rejected");
    }
}

#[test]
fn replaces_a_killed_primary_without_wrong_results() {
    let Some((mut cluster, program)) = start_filled(&[]) else { return };
    let (load, acknowledged) = start_load(&program);

    // The primary of some of the expected documents.
    let victim = cluster.owner(cluster.slot("docs:0"));
    let replica = cluster.replicas_of(victim)[0];
    let is_on_other_shard = |id: &usize| cluster.owner(cluster.slot(&format!("docs:{id}"))) != victim;
    let expected_partial: Vec<usize> = (0..DOCUMENTS).filter(is_on_other_shard).take(K).collect();
    let killed = Instant::now();
    cluster.kill(victim);
    let rejected = wait_until_rejected(&program);
    let address = format!("127.0.0.1:{victim}");
    assert!(rejected.json["detail"].as_str().unwrap().contains(&address), "{}", rejected.json);
    let partial = search(&program, true);
    assert_eq!(partial.status, 200, "{}", partial.json);
    assert!(partial.json["unanswered"].to_string().contains(&address), "{}", partial.json);
    assert_eq!(ids(&partial.json), expected_partial);
    let metrics = program.get_text("/metrics");
    let down = format!("nearfield_redis_up{{node=\"{address}\"}} 0");
    assert!(metrics.contains(&down), "{metrics}");
    let unready = program.get("/readyz");
    assert!(
        unready.status == 200 || unready.json["notes"].to_string().contains(&address),
        "{}",
        unready.json
    );

    cluster.wait_until_primary(replica);
    let failover = killed.elapsed();
    load.wait_for_successes(200);
    let report = stop_and_check(load, "a primary killed", killed);
    eprintln!("the cluster's own failover took {failover:?}");
    assert!(report.last_rejected(killed) <= failover + RECOVERY_MARGIN);
    program.wait_until_ready();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
    let lost = lost(&acknowledged, &program).len();
    let count = acknowledged.lock().unwrap().len();
    eprintln!("{lost} of {count} acknowledged writes lost, which Redis permits");

    cluster.restart(victim);
    cluster.wait_until_healthy();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
}

#[test]
fn a_write_confirmed_by_a_replica_survives_its_primary() {
    let Some((mut cluster, program)) = start_filled(&["--wait-replicas", "1"]) else { return };
    let (load, acknowledged) = start_load(&program);
    let victim = cluster.owner(cluster.slot("docs:0"));
    let replica = cluster.replicas_of(victim)[0];
    let killed = Instant::now();
    cluster.kill(victim);
    cluster.wait_until_primary(replica);
    load.wait_for_successes(SEARCHERS * 50);
    let report = stop_and_check(load, "a primary killed, writes waiting for a replica", killed);
    let unreplicated = report.samples.iter().filter(|sample| sample.code == "redis-not-replicated").count();
    eprintln!("{unreplicated} writes were applied and reported as not replicated");
    assert!(!acknowledged.lock().unwrap().is_empty());
    assert_eq!(lost(&acknowledged, &program), Vec::<usize>::new());
}

#[test]
fn replaces_a_hung_primary_which_returns_as_a_replica() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let (load, _) = start_load(&program);
    let victim = cluster.owner(cluster.slot("docs:0"));
    let replica = cluster.replicas_of(victim)[0];
    let paused = Instant::now();
    cluster.pause(victim);
    cluster.wait_until_primary(replica);
    let failover = paused.elapsed();
    load.wait_for_successes(200);
    cluster.resume(victim);
    cluster.wait_until_healthy();
    load.wait_for_successes(200);
    let report = stop_and_check(load, "a primary stopped", paused);
    eprintln!("the cluster's own failover took {failover:?}");
    // Commands sent before the breaker opened wait for the command timeout.
    let allowed = failover + RESPONSE_TIMEOUT + RECOVERY_MARGIN;
    assert!(report.last_rejected(paused) <= allowed, "{:?} > {allowed:?}", report.last_rejected(paused));
    program.wait_until_ready();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
}

#[test]
fn migrates_slots_under_load_without_wrong_results() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let (load, acknowledged) = start_load(&program);
    let started = Instant::now();
    let primaries = cluster.primaries();
    // Move the slots of the expected documents to the next primary.
    let slots: BTreeSet<u16> = expected_ids().iter().map(|id| cluster.slot(&format!("docs:{id}"))).collect();
    for slot in slots {
        let from = cluster.owner(slot);
        let position = primaries.iter().position(|port| *port == from).unwrap();
        let to = primaries[(position + 1) % primaries.len()];
        cluster.begin_migration(from, to, slot);
        // Only then are the documents moved; with many documents, the migration takes long enough to be reported anyway.
        let deadline = Instant::now() + RECOVERY_TIMEOUT;
        while !program.get("/readyz").json["notes"].to_string().contains("migrating slots") {
            assert!(Instant::now() < deadline, "the slot migration is not reported");
        }
        while cluster.migrate_some(from, to, slot, "1") {}
        load.wait_for_successes(20);
        cluster.end_migration(from, to, slot);
    }
    load.wait_for_successes(100);
    // The slot that the name of a primary's index hashes to.
    let Reply::Array(indexes) = cluster.command(primaries[0], &["FT._LIST"]) else { panic!("FT._LIST") };
    let Reply::Text(index) = &indexes[0] else { panic!("an index's name: {indexes:?}") };
    let slot = cluster.slot(std::str::from_utf8(index).unwrap());
    cluster.migrate_slots(primaries[0], primaries[1], slot..=slot);
    let index_moved = Instant::now();
    load.wait_for_successes(300);
    let report = stop_and_check(load, "slots migrated", started);
    assert!(report.last_rejected(index_moved) <= RECOVERY_TIMEOUT);
    program.wait_until_ready();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
    assert_eq!(lost(&acknowledged, &program), Vec::<usize>::new());
    let info = program.get("/collections/docs").json;
    let count = DOCUMENTS + acknowledged.lock().unwrap().len();
    assert!(info["documents"].as_u64().unwrap() >= count as u64, "{info}");
    let unused = program.get("/readyz").json["notes"].to_string();
    assert!(unused.contains("whose slot moved to another server"), "{unused}");
}

#[test]
fn reconnects_after_all_connections_were_closed_at_once() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let (load, acknowledged) = start_load(&program);
    let closed = Instant::now();
    for _ in 0..3 {
        cluster.close_client_connections();
        load.wait_for_successes(50);
    }
    let last_closed = Instant::now();
    load.wait_for_successes(200);
    let report = stop_and_check(load, "connections closed", closed);
    assert!(report.last_rejected(last_closed) <= RECOVERY_TIMEOUT);
    assert_eq!(lost(&acknowledged, &program), Vec::<usize>::new());
}

#[test]
fn waits_for_a_cluster_that_is_down_at_startup() {
    let options = ClusterOptions { node_timeout_ms: 60_000, ..OPTIONS };
    let Some(cluster) = RedisCluster::with(options) else { return };
    for port in cluster.ports() {
        cluster.pause(port);
    }
    let program = Program::serve(&cluster.url());
    assert_eq!(program.get("/healthz").status, 200);
    let unready = program.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.json["notes"].to_string().contains("127.0.0.1:"), "{}", unready.json);
    let rejected = program.get("/collections");
    assert_eq!(rejected.status, 503, "{}", rejected.json);
    assert!(rejected.took <= RESPONSE_TIMEOUT, "{:?}", rejected.took);
    for port in cluster.ports() {
        cluster.resume(port);
    }
    let resumed = Instant::now();
    while program.get("/readyz").status != 200 {
        // Each seed may fail once more before the first one replies.
        assert!(resumed.elapsed() <= READY_TIMEOUT + RECOVERY_TIMEOUT, "{}", program.get("/readyz").json);
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("ready {:?} after the cluster was available", resumed.elapsed());
    fill_with(&program, "flat", DOCUMENTS);
    assert_eq!(ids(&search(&program, false).json), expected_ids());
}

#[test]
fn only_a_shard_without_memory_rejects_documents() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let full = cluster.owner(cluster.slot("docs:0"));
    cluster.command(full, &["CONFIG", "SET", "maxmemory", "1"]);
    let documents: Vec<Value> = (0..100)
        .map(|number| json!({"id": number.to_string(), "rank": number, "place": [number, 0, 0, 1]}))
        .collect();
    let changed: Vec<Value> = documents
        .iter()
        .map(|document| json!({"id": document["id"], "rank": document["rank"], "place": [document["rank"], 0, 0, 2]}))
        .collect();
    let written = program.post("/collections/docs/documents", &json!({"documents": changed})).json;
    for (number, result) in written["results"].as_array().unwrap().iter().enumerate() {
        if cluster.owner(cluster.slot(&format!("docs:{number}"))) == full {
            assert!(result.to_string().contains("redis-full"), "{number}: {result}");
        } else {
            assert_eq!(result["status"], "updated", "{number}: {result}");
        }
    }
    assert_eq!(search(&program, false).status, 200, "reads continue");
    cluster.command(full, &["CONFIG", "SET", "maxmemory", "0"]);
    let written = program.post("/collections/docs/documents", &json!({"documents": documents})).json;
    assert_eq!(written["errors"], 0, "{written}");
}

#[test]
fn replicas_serve_reads() {
    let Some((cluster, program)) = start_filled(&["--read-from-replicas", "--wait-replicas", "1"]) else {
        return;
    };
    let searches_on = |port: u16| match cluster.command(port, &["INFO", "commandstats"]) {
        Reply::Text(stats) => {
            let stats = String::from_utf8_lossy(&stats).into_owned();
            let searches = stats.lines().find_map(|line| line.strip_prefix("cmdstat_FT.SEARCH:calls="));
            searches.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
        }
        other => panic!("INFO: {other:?}"),
    };
    let searches_on_primaries = || cluster.primaries().into_iter().map(searches_on).sum::<u64>();
    let deadline = Instant::now() + RECOVERY_TIMEOUT;
    loop {
        let before = searches_on_primaries();
        let response = search(&program, false);
        assert_eq!(ids(&response.json), expected_ids(), "{}", response.json);
        // Until a replica is connected, its primary serves reads.
        if searches_on_primaries() == before
            && cluster.replicas().into_iter().all(|port| searches_on(port) > 0)
        {
            break;
        }
        assert!(Instant::now() < deadline, "not every replica was used");
    }
}
