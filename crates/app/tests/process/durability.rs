//! Writes acknowledged before they are durable: losses after a kill, none after a stop, the number of syncs, and the
//! warnings.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    server::{Server, agent, get},
    syncs,
};

/// Maximum duration of any step.
const TIMEOUT: Duration = Duration::from_secs(60);

fn start(home: &Path, durability: &str) -> Server {
    let mut server = Server::start_with(home, &[], &[("NEARFIELD_DURABILITY", durability)]);
    server.wait_until_ready();
    server
}

fn stats(server: &Server) -> Value {
    get(&format!("{}/stats", server.address())).unwrap().1
}

fn durable_seq(server: &Server) -> u64 {
    stats(server)["durable_seq"].as_u64().unwrap()
}

/// Writes consecutively numbered documents until `is_enough` returns true; returns the next number.
fn write_from(server: &Server, first: u64, mut is_enough: impl FnMut(u64) -> bool) -> u64 {
    let (agent, started) = (agent(), Instant::now());
    let mut next = first;
    while !is_enough(next) {
        assert!(started.elapsed() < TIMEOUT, "not finished after {next} documents");
        syncs::write(&agent, &server.address(), next);
        next += 1;
    }
    next
}

/// Asserts that the stored documents are the first ones without a gap; returns their count.
fn count_documents(server: &Server) -> u64 {
    let mut found = BTreeSet::new();
    let mut after = String::new();
    loop {
        let url = format!("{}/collections/notes/documents?limit=1000{after}", server.address());
        let (_, page) = get(&url).unwrap();
        let ids = page["documents"].as_array().unwrap().iter().map(|document| &document["id"]);
        found.extend(ids.map(|id| id.as_str().unwrap().parse::<u64>().unwrap()));
        match page["next"].as_str() {
            Some(cursor) => after = format!("&after={cursor}"),
            None => break,
        }
    }
    let count = found.len() as u64;
    assert!(found.into_iter().eq(0..count), "a document is missing although a later one is stored");
    let (_, response) = get(&format!("{}/collections/notes/count", server.address())).unwrap();
    assert_eq!(response["count"], count, "the index reports a different count");
    count
}

#[test]
fn a_kill_loses_only_the_latest_non_durable_writes() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path(), "everysec");
    server.create_collection();
    let mut next = 0;
    for kill in 0..3 {
        let initial = durable_seq(&server);
        let mut durable = initial;
        let written = write_from(&server, next, |number| {
            if number % 10 == 0 {
                durable = durable_seq(&server);
            }
            // Stop a few writes after the first durable one since this start.
            durable > initial && number % 10 == 5
        });
        let last = stats(&server)["last_seq"].as_u64().unwrap();
        server.kill();
        server = start(home.path(), "everysec");
        let kept = count_documents(&server);
        let lost = written - kept;
        println!("kill {kill}: {lost} of {} changes that were not durable were lost", last - durable);
        assert!(
            lost <= last - durable,
            "{lost} changes were lost, but only {} were not durable",
            last - durable
        );
        next = kept;
    }
    for durability in ["everysec", "none"] {
        server.stop();
        server = start(home.path(), durability);
        next = write_from(&server, next, |number| number == next + 20);
        server.stop();
        server = start(home.path(), durability);
        assert_eq!(count_documents(&server), next, "{durability}: a stop loses nothing");
    }
    server.stop();
}

#[test]
fn everysec_syncs_about_once_per_second() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut server) = syncs::start_traced(home.path(), &[("NEARFIELD_DURABILITY", "everysec")]) else {
        return;
    };
    let (_, from) = syncs::trace_events(home.path(), 0);
    let started = Instant::now();
    let (mut last, mut commits) = (durable_seq(&server), 0);
    let writes = write_from(&server, 0, |number| {
        if number % 10 == 0 {
            let now = durable_seq(&server);
            commits += u64::from(now > last);
            last = now;
        }
        commits >= 3 && number >= 200
    });
    let seconds = started.elapsed().as_secs();
    let (events, _) = syncs::trace_events(home.path(), from);
    let syncs = events.chars().filter(|kind| *kind == 'S').count() as u64;
    println!("{writes} writes in {seconds} s: {syncs} syncs (two per commit)");
    assert!(syncs >= 2 * 3, "{syncs} syncs for {commits} durable commits");
    // Two syncs per second, plus some at the start and the end. One per write would be hundreds.
    assert!(syncs <= 2 * (2 * seconds + 4), "{syncs} syncs in {seconds} s");
    server.kill();
}

#[test]
fn readiness_and_log_warn_about_reduced_durability() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path(), "everysec");
    let stats = stats(&server);
    assert_eq!(stats["durability"], "everysec", "{stats}");
    let (status, ready) = get(&format!("{}/readyz", server.address())).unwrap();
    let warning = "durability is everysec: writes acknowledged in the last 1 s are lost";
    let notes = ready["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().starts_with(warning)), "{ready}");
    assert_eq!((status, &ready["ready"]), (200, &Value::Bool(true)));
    server.stop();
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    assert!(log.contains(warning), "{log}");
}
