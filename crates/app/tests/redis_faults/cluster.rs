//! A Redis Cluster whose servers die, hang, lose their connections or migrate slots, under a real
//! `nearfield serve`. In every case a response is either correct or an error.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testing::{
    redis_cluster::{ClusterOptions, RedisCluster},
    redis_stack::Reply,
};

use crate::{
    ANSWERED_WITHIN, OPENS_WITHIN, READY_WITHIN, RECOVERS_WITHIN, fill_with,
    program::{self, Program, agent, timed},
};

/// Shorter than the default, so that a failover takes a few seconds.
const NODE_TIMEOUT_MS: u32 = 1500;

/// Without full coverage, the remaining shards keep answering while one is down.
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

/// Pause between a response and the next request.
const PAUSE: Duration = Duration::from_millis(5);

/// Hits per search. The correct ones are the documents with the lowest ids.
const NEAREST: usize = 10;

/// A cluster, and a ready program with documents in it.
fn start_filled(flags: &[&str]) -> Option<(RedisCluster, Program)> {
    let cluster = RedisCluster::with(OPTIONS)?;
    let program = Program::serve_with(&cluster.url(), flags);
    program.ready();
    fill_with(&program, "flat", DOCUMENTS);
    Some((cluster, program))
}

fn search_body(allow_partial: bool) -> Value {
    json!({"vector": [0, 0, 0, 1], "k": NEAREST, "fields": ["rank"], "allow_partial": allow_partial})
}

/// The ids of the hits, whose fields are checked.
fn ids(reply: &Value) -> Vec<usize> {
    let id = |hit: &Value| {
        let id: usize = hit["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(hit["fields"]["rank"], id, "{hit}");
        id
    };
    reply["results"].as_array().unwrap().iter().map(id).collect()
}

fn expected_ids() -> Vec<usize> {
    (0..NEAREST).collect()
}

/// A recorded response.
#[derive(Clone, Debug)]
struct Response {
    sent_at: Instant,
    took: Duration,
    status: u16,
    /// The error code of a failure.
    code: String,
    detail: String,
}

/// Clients that search, and clients that write their own documents.
struct Load {
    stop: Arc<AtomicBool>,
    responses: Arc<Mutex<Vec<Response>>>,
    /// The numbers of documents whose writes were acknowledged.
    acknowledged: Arc<Mutex<BTreeSet<usize>>>,
    clients: Vec<JoinHandle<()>>,
}

/// What the clients recorded.
struct LoadReport {
    responses: Vec<Response>,
    acknowledged: BTreeSet<usize>,
}

impl Load {
    fn start(program: &Program) -> Load {
        let stop = Arc::<AtomicBool>::default();
        let responses = Arc::<Mutex<Vec<Response>>>::default();
        let acknowledged = Arc::<Mutex<BTreeSet<usize>>>::default();
        let clients = (0..SEARCHERS + WRITERS)
            .map(|client| {
                let url = program.url().to_owned();
                let (stop, responses, acknowledged) = (stop.clone(), responses.clone(), acknowledged.clone());
                thread::spawn(move || {
                    let agent = agent();
                    for turn in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        // Far from everything that is searched for.
                        let number = 1000 + WRITERS * turn + client;
                        let sent_at = Instant::now();
                        let reply = timed(|| {
                            if client < WRITERS {
                                let body = json!({"rank": number, "place": [number, 9, 9, 9]});
                                let put = agent.put(format!("{url}/collections/docs/documents/{number}"));
                                put.content_type("application/json").send(body.to_string())
                            } else {
                                let search = agent.post(format!("{url}/collections/docs/search"));
                                search.content_type("application/json").send(search_body(false).to_string())
                            }
                        });
                        if client >= WRITERS && reply.status == 200 {
                            assert_eq!(ids(&reply.json), expected_ids(), "wrong result: {}", reply.json);
                        }
                        if client < WRITERS && reply.status < 300 {
                            acknowledged.lock().unwrap().insert(number);
                        }
                        let text = |name: &str| reply.json[name].as_str().unwrap_or_default().to_owned();
                        responses.lock().unwrap().push(Response {
                            sent_at,
                            took: reply.took,
                            status: reply.status,
                            code: text("code"),
                            detail: text("detail"),
                        });
                        thread::sleep(PAUSE);
                    }
                })
            })
            .collect();
        let load = Load { stop, responses, acknowledged, clients };
        load.wait_for_successes(100);
        load
    }

    /// Waits until this many more requests succeeded.
    fn wait_for_successes(&self, count: usize) {
        let successes =
            || self.responses.lock().unwrap().iter().filter(|response| response.status < 300).count();
        let target = successes() + count;
        while successes() < target {
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client failed");
            thread::sleep(PAUSE);
        }
    }

    /// Stops the clients and returns all responses. A request without a response, or with a wrong one,
    /// fails the test.
    fn stop(self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("every request gets a correct response");
        }
        let responses = std::mem::take(&mut *self.responses.lock().unwrap());
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        LoadReport { responses, acknowledged }
    }
}

impl LoadReport {
    /// Checks that every response came in time and every error states its cause.
    fn check(&self) {
        for response in &self.responses {
            assert!(response.took <= ANSWERED_WITHIN, "too late: {response:?}");
            let is_explained = match response.status {
                200 | 201 => true,
                503 => {
                    (response.code.starts_with("redis-") || response.code.starts_with("index-"))
                        && !response.detail.is_empty()
                }
                _ => false,
            };
            assert!(is_explained, "{response:?}");
        }
    }

    /// Time from `since` to the last rejected request.
    fn last_rejected(&self, since: Instant) -> Duration {
        let rejected =
            self.responses.iter().filter(|response| response.status == 503 && response.sent_at >= since);
        let last = rejected.map(|response| response.sent_at).max();
        last.map_or(Duration::ZERO, |last| last - since)
    }

    fn print_summary(&self, what: &str, since: Instant) {
        let during = || self.responses.iter().filter(|response| response.sent_at >= since);
        eprintln!(
            "{what}: {} requests, {} rejected, slowest {:?}, last rejection after {:?}",
            during().count(),
            during().filter(|response| response.status == 503).count(),
            during().map(|response| response.took).max().unwrap_or_default(),
            self.last_rejected(since),
        );
    }

    /// Acknowledged documents that do not exist, once all shards are available.
    fn lost(&self, program: &Program) -> Vec<usize> {
        program.ready();
        let is_there = |number: &usize| {
            let reply = program.get(&format!("/collections/docs/documents/{number}"));
            assert!(matches!(reply.status, 200 | 404), "{}", reply.json);
            reply.status == 200
        };
        self.acknowledged.iter().filter(|number| !is_there(number)).copied().collect()
    }
}

fn search(program: &Program, allow_partial: bool) -> program::Reply {
    program.post("/collections/docs/search", &search_body(allow_partial))
}

/// Waits until a search is rejected.
fn wait_until_rejected(program: &Program) -> program::Reply {
    let until = Instant::now() + OPENS_WITHIN;
    loop {
        let reply = search(program, false);
        if reply.status == 503 {
            return reply;
        }
        assert!(Instant::now() < until, "a shard is down, but no search is rejected");
    }
}

#[test]
fn replaces_a_killed_primary_without_wrong_results() {
    let Some((mut cluster, program)) = start_filled(&[]) else { return };
    let load = Load::start(&program);

    // The slots of some of the expected documents.
    let victim = cluster.owner(cluster.slot("docs:0"));
    let replica = cluster.replicas_of(victim)[0];
    let elsewhere = |id: &usize| cluster.owner(cluster.slot(&format!("docs:{id}"))) != victim;
    let nearest_elsewhere: Vec<usize> = (0..DOCUMENTS).filter(elsewhere).take(NEAREST).collect();
    let killed = Instant::now();
    cluster.kill(victim);
    let rejected = wait_until_rejected(&program);
    let place = format!("127.0.0.1:{victim}");
    assert!(rejected.json["detail"].as_str().unwrap().contains(&place), "{}", rejected.json);
    let partial = search(&program, true);
    assert_eq!(partial.status, 200, "{}", partial.json);
    assert!(partial.json["unanswered"].to_string().contains(&place), "{}", partial.json);
    assert_eq!(ids(&partial.json), nearest_elsewhere);
    let metrics = program.text("/metrics");
    let down = format!("nearfield_redis_up{{node=\"{place}\"}} 0");
    assert!(metrics.contains(&down), "{metrics}");
    let unready = program.get("/readyz");
    assert!(unready.status == 200 || unready.json["notes"].to_string().contains(&place), "{}", unready.json);

    cluster.wait_until_primary(replica);
    let failover = killed.elapsed();
    load.wait_for_successes(200);
    let report = load.stop();
    report.check();
    report.print_summary("a primary killed", killed);
    eprintln!("the cluster's own failover took {failover:?}");
    assert!(report.last_rejected(killed) <= failover + RECOVERY_MARGIN);
    program.ready();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
    let lost = report.lost(&program).len();
    eprintln!("{lost} of {} acknowledged writes lost, as Redis may lose them", report.acknowledged.len());

    cluster.restart(victim);
    cluster.wait_until_whole();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
}

#[test]
fn a_write_confirmed_by_a_replica_survives_its_primary() {
    let Some((mut cluster, program)) = start_filled(&["--wait-replicas", "1"]) else { return };
    let load = Load::start(&program);
    let victim = cluster.owner(cluster.slot("docs:0"));
    let replica = cluster.replicas_of(victim)[0];
    let killed = Instant::now();
    cluster.kill(victim);
    cluster.wait_until_primary(replica);
    load.wait_for_successes(SEARCHERS * 50);
    let report = load.stop();
    report.check();
    report.print_summary("a primary killed, writes waiting for a replica", killed);
    let unreplicated =
        report.responses.iter().filter(|response| response.code == "redis-not-replicated").count();
    eprintln!("{unreplicated} writes were made but told as not replicated");
    assert!(!report.acknowledged.is_empty());
    assert_eq!(report.lost(&program), Vec::<usize>::new());
}

#[test]
fn replaces_a_hung_primary_which_returns_as_a_replica() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let load = Load::start(&program);
    let victim = cluster.owner(cluster.slot("docs:0"));
    let replica = cluster.replicas_of(victim)[0];
    let paused = Instant::now();
    cluster.pause(victim);
    cluster.wait_until_primary(replica);
    let failover = paused.elapsed();
    load.wait_for_successes(200);
    cluster.resume(victim);
    cluster.wait_until_whole();
    load.wait_for_successes(200);
    let report = load.stop();
    report.check();
    report.print_summary("a primary stopped", paused);
    eprintln!("the cluster's own failover took {failover:?}");
    // Commands sent before the breaker opened wait for the command timeout.
    let allowed = failover + ANSWERED_WITHIN + RECOVERY_MARGIN;
    assert!(report.last_rejected(paused) <= allowed, "{:?} > {allowed:?}", report.last_rejected(paused));
    program.ready();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
}

#[test]
fn migrates_slots_under_load_without_wrong_results() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let load = Load::start(&program);
    let moved = Instant::now();
    let primaries = cluster.primaries();
    // Move the slots of the expected documents to the next primary.
    let slots: BTreeSet<u16> = expected_ids().iter().map(|id| cluster.slot(&format!("docs:{id}"))).collect();
    for slot in slots {
        let from = cluster.owner(slot);
        let place = primaries.iter().position(|port| *port == from).unwrap();
        let to = primaries[(place + 1) % primaries.len()];
        cluster.begin_migration(from, to, slot);
        // With many documents the migration would be noticed before the first of them moves.
        let until = Instant::now() + RECOVERS_WITHIN;
        while !program.get("/readyz").json["notes"].to_string().contains("migrating slots") {
            assert!(Instant::now() < until, "the slot migration is not reported");
        }
        while cluster.migrate_some(from, to, slot, "1") {}
        load.wait_for_successes(20);
        cluster.end_migration(from, to, slot);
    }
    load.wait_for_successes(100);
    // The slot that the name of a primary's index hashes to.
    let Reply::Array(indexes) = cluster.ask(primaries[0], &["FT._LIST"]) else { panic!("FT._LIST") };
    let Reply::Text(index) = &indexes[0] else { panic!("an index's name: {indexes:?}") };
    let slot = cluster.slot(std::str::from_utf8(index).unwrap());
    cluster.migrate_slots(primaries[0], primaries[1], slot..=slot);
    let renamed = Instant::now();
    load.wait_for_successes(300);
    let report = load.stop();
    report.check();
    report.print_summary("slots moved", moved);
    assert!(report.last_rejected(renamed) <= RECOVERS_WITHIN);
    program.ready();
    assert_eq!(ids(&search(&program, false).json), expected_ids());
    assert_eq!(report.lost(&program), Vec::<usize>::new());
    let info = program.get("/collections/docs").json;
    let count = DOCUMENTS + report.acknowledged.len();
    assert!(info["documents"].as_u64().unwrap() >= count as u64, "{info}");
    let unused = program.get("/readyz").json["notes"].to_string();
    assert!(unused.contains("whose slot moved to another server"), "{unused}");
}

#[test]
fn reconnects_after_all_connections_were_closed_at_once() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let load = Load::start(&program);
    let cut = Instant::now();
    for _ in 0..3 {
        cluster.cut_all_connections();
        load.wait_for_successes(50);
    }
    let last_cut = Instant::now();
    load.wait_for_successes(200);
    let report = load.stop();
    report.check();
    report.print_summary("connections cut", cut);
    assert!(report.last_rejected(last_cut) <= RECOVERS_WITHIN);
    assert_eq!(report.lost(&program), Vec::<usize>::new());
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
    assert!(rejected.took <= ANSWERED_WITHIN, "{:?}", rejected.took);
    for port in cluster.ports() {
        cluster.resume(port);
    }
    let back = Instant::now();
    while program.get("/readyz").status != 200 {
        // Each seed may fail once more before the first one replies.
        assert!(back.elapsed() <= READY_WITHIN + RECOVERS_WITHIN, "{}", program.get("/readyz").json);
        thread::sleep(Duration::from_millis(10));
    }
    eprintln!("ready {:?} after the cluster", back.elapsed());
    fill_with(&program, "flat", DOCUMENTS);
    assert_eq!(ids(&search(&program, false).json), expected_ids());
}

#[test]
fn only_a_shard_without_memory_rejects_documents() {
    let Some((cluster, program)) = start_filled(&[]) else { return };
    let full = cluster.owner(cluster.slot("docs:0"));
    cluster.ask(full, &["CONFIG", "SET", "maxmemory", "1"]);
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
    cluster.ask(full, &["CONFIG", "SET", "maxmemory", "0"]);
    let written = program.post("/collections/docs/documents", &json!({"documents": documents})).json;
    assert_eq!(written["errors"], 0, "{written}");
}

#[test]
fn replicas_answer_reads() {
    let Some((cluster, program)) = start_filled(&["--read-from-replicas", "--wait-replicas", "1"]) else {
        return;
    };
    let searches_on = |port: u16| match cluster.ask(port, &["INFO", "commandstats"]) {
        Reply::Text(stats) => {
            let stats = String::from_utf8_lossy(&stats).into_owned();
            let searches = stats.lines().find_map(|line| line.strip_prefix("cmdstat_FT.SEARCH:calls="));
            searches.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
        }
        other => panic!("INFO: {other:?}"),
    };
    let by_primaries = || cluster.primaries().into_iter().map(searches_on).sum::<u64>();
    let until = Instant::now() + RECOVERS_WITHIN;
    loop {
        let before = by_primaries();
        let reply = search(&program, false);
        assert_eq!(ids(&reply.json), expected_ids(), "{}", reply.json);
        // Before a replica is connected, its primary answers.
        if by_primaries() == before && cluster.replicas().into_iter().all(|port| searches_on(port) > 0) {
            break;
        }
        assert!(Instant::now() < until, "not every replica was used");
    }
}
