//! Writes that are answered before they are durable: what a kill takes, what a stop leaves, how often is synced, and who
//! is told.

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

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(home: &Path, durability: &str) -> Server {
    let mut server = Server::start_with(home, &[], &[("NEARFIELD_DURABILITY", durability)]);
    server.wait_until_ready();
    server
}

fn stats(server: &Server) -> Value {
    get(&format!("{}/stats", server.address())).unwrap().1
}

fn durable(server: &Server) -> u64 {
    stats(server)["durable_seq"].as_u64().unwrap()
}

/// Writes documents one after the other, by their numbers, until `enough` says so; the number that comes next.
fn write_from(server: &Server, first: u64, mut enough: impl FnMut(u64) -> bool) -> u64 {
    let (agent, started) = (agent(), Instant::now());
    let mut next = first;
    while !enough(next) {
        assert!(started.elapsed() < PATIENCE, "{next} documents, and it is never enough");
        syncs::write(&agent, &server.address(), next);
        next += 1;
    }
    next
}

/// The numbers of the documents that are there, which must be the first ones; how many those are.
fn found(server: &Server) -> u64 {
    let mut found = BTreeSet::new();
    let mut next = String::new();
    loop {
        let url = format!("{}/collections/notes/documents?limit=1000{next}", server.address());
        let (_, page) = get(&url).unwrap();
        let ids = page["documents"].as_array().unwrap().iter().map(|found| &found["id"]);
        found.extend(ids.map(|id| id.as_str().unwrap().parse::<u64>().unwrap()));
        match page["next"].as_str() {
            Some(cursor) => next = format!("&after={cursor}"),
            None => break,
        }
    }
    let count = found.len() as u64;
    assert!(found.into_iter().eq(0..count), "one is missing, and a later one is there");
    let (_, counted) = get(&format!("{}/collections/notes/count", server.address())).unwrap();
    assert_eq!(counted["count"], count, "the index counts otherwise");
    count
}

#[test]
fn a_kill_takes_the_end_of_what_was_not_durable_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path(), "everysec");
    server.make_collection();
    let mut next = 0;
    for kill in 0..3 {
        let began = durable(&server);
        let mut told = began;
        let written = write_from(&server, next, |number| {
            if number % 10 == 0 {
                told = durable(&server);
            }
            // Once something of this life is durable, a little more that is not.
            told > began && number % 10 == 5
        });
        let last = stats(&server)["last_seq"].as_u64().unwrap();
        server.kill();
        server = start(home.path(), "everysec");
        let left = found(&server);
        let lost = written - left;
        println!("kill {kill}: of {} changes that were not durable, {lost} are lost", last - told);
        assert!(lost <= last - told, "{lost} are lost of {} that were not durable", last - told);
        next = left;
    }
    for durability in ["everysec", "none"] {
        server.stop();
        server = start(home.path(), durability);
        next = write_from(&server, next, |number| number == next + 20);
        server.stop();
        server = start(home.path(), durability);
        assert_eq!(found(&server), next, "{durability}: a stop loses nothing");
    }
    server.stop();
}

#[test]
fn a_second_of_writes_shares_its_syncs() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut server) = syncs::traced(home.path(), &[("NEARFIELD_DURABILITY", "everysec")]) else {
        return;
    };
    let (_, from) = syncs::story(home.path(), 0);
    let started = Instant::now();
    let (mut last, mut commits) = (durable(&server), 0);
    let writes = write_from(&server, 0, |number| {
        if number % 10 == 0 {
            let now = durable(&server);
            commits += u64::from(now > last);
            last = now;
        }
        commits >= 3 && number >= 200
    });
    let seconds = started.elapsed().as_secs();
    let (told, _) = syncs::story(home.path(), from);
    let syncs = told.chars().filter(|kind| *kind == 'S').count() as u64;
    println!("{writes} writes in {seconds} s: {syncs} syncs (two a commit)");
    assert!(syncs >= 2 * 3, "{syncs} syncs for {commits} durable commits");
    // Two a second, and as many again for the beginning and the end; with one for each write there would be hundreds.
    assert!(syncs <= 2 * (2 * seconds + 4), "{syncs} syncs in {seconds} s");
    server.kill();
}

#[test]
fn who_asks_and_who_reads_the_log_is_told_what_may_be_lost() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path(), "everysec");
    let stats = stats(&server);
    assert_eq!(stats["durability"], "everysec", "{stats}");
    let (status, ready) = get(&format!("{}/readyz", server.address())).unwrap();
    let warning = "durability is everysec: what was acknowledged in the last 1 s is lost";
    let notes = ready["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().starts_with(warning)), "{ready}");
    assert_eq!((status, &ready["ready"]), (200, &Value::Bool(true)));
    server.stop();
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    assert!(log.contains(warning), "{log}");
}
