//! The system's clock jumps, under a server that runs and between two that do: what has ended shows nowhere, what has
//! not ended stays, and no timeout is taken for over.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ledger::vector,
    server::{Server, get, send},
};

const DAY_S: u64 = 24 * 3600;
const YEAR_S: u64 = 365 * DAY_S;
/// Documents, and after how many seconds from the beginning of the test each ends.
const ENDS_S: [(&str, Option<u64>); 5] = [
    ("never", None),
    ("in-half-a-day", Some(DAY_S / 2)),
    ("in-two-days", Some(2 * DAY_S)),
    ("in-nine-years", Some(9 * YEAR_S)),
    ("in-eleven-years", Some(11 * YEAR_S)),
];
/// Beyond it the test fails: ten times what may pass until ended documents are deleted.
const PATIENCE: Duration = Duration::from_secs(600);

/// The library that tells a process another time; `None` where it is not installed.
fn library() -> Option<String> {
    let told = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
    match told {
        Ok(told) if told.status.success() => Some(String::from_utf8(told.stdout).unwrap().trim().to_owned()),
        _ => {
            assert!(std::env::var_os("NEARFIELD_REQUIRE_TOOLS").is_none(), "faketime is missing");
            println!("SKIPPED: there is no faketime here");
            None
        }
    }
}

/// Puts the clock of the server that runs so many seconds from the real one.
fn put_clock(home: &Path, seconds: i64) {
    fs::write(home.join("clock.new"), format!("{seconds:+}")).unwrap();
    fs::rename(home.join("clock.new"), home.join("clock")).unwrap();
}

fn start(home: &Path, library: &str) -> Server {
    let clock = home.join("clock");
    let mut server = Server::start_with(
        home,
        &[],
        &[
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            // Of a machine whose clock is put, this one stays.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    server.wait_until_ready();
    server
}

/// Every way to see a document shows these and no others.
fn check(server: &Server, standing: &BTreeSet<&str>, when: &str) {
    let ask = |path: &str| get(&format!("{}/collections/notes{path}", server.address())).unwrap();
    let ids = |found: &Value| -> BTreeSet<String> {
        let id = |found: &Value| found["id"].as_str().unwrap().to_owned();
        found.as_array().unwrap().iter().map(id).collect()
    };
    let expected: BTreeSet<String> = standing.iter().map(|id| (*id).to_owned()).collect();
    for (id, _) in ENDS_S {
        let status = ask(&format!("/documents/{id}")).0;
        assert_eq!(status == 200, standing.contains(id), "{id} {when}: {status}");
    }
    let (_, listed) = ask("/documents?limit=100");
    assert_eq!(ids(&listed["documents"]), expected, "{when}: listed");
    for exact in [false, true] {
        let question = json!({"vector": vector("wanted", 1), "k": 100, "exact": exact});
        let url = format!("{}/collections/notes/search", server.address());
        let (_, found) = send("POST", &url, &question).unwrap();
        assert_eq!(ids(&found["results"]), expected, "{when}: found, exact {exact}");
    }
    assert_eq!(ask("/count").1["count"], standing.len(), "{when}");
    assert_eq!(ask("").1["documents"], standing.len(), "{when}");
}

/// What has ended leaves the store by itself.
fn wait_until_deleted(server: &Server, standing: usize) -> Duration {
    let started = Instant::now();
    while get(&format!("{}/stats", server.address())).unwrap().1["documents"] != standing {
        assert!(started.elapsed() < PATIENCE, "ended documents are not deleted");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

/// Sends half of a question; the other half is sent when this is called.
fn half_asked(server: &Server) -> impl FnOnce() -> String {
    let mut stream = TcpStream::connect(server.address().strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = json!({"vector": vector("wanted", 1), "k": 1}).to_string();
    let (first, second) = body.split_at(body.len() / 2);
    let head = format!(
        "POST /collections/notes/search HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{first}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let second = second.to_owned();
    move || {
        stream.write_all(second.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn jumps_of_the_clock_end_what_is_due_and_bring_nothing_back() {
    let Some(library) = library() else { return };
    let home = tempfile::tempdir().unwrap();
    put_clock(home.path(), 0);
    let mut server = start(home.path(), &library);
    server.make_collection();
    for (number, (id, ttl_s)) in (0..).zip(ENDS_S) {
        let mut document = json!({"text": "a word", "version": number, "place": vector(id, number)});
        if let Some(ttl_s) = ttl_s {
            document["ttl_s"] = json!(ttl_s);
        }
        let url = format!("{}/collections/notes/documents/{id}", server.address());
        let (status, answer) = send("PUT", &url, &document).unwrap();
        assert_eq!(status, 201, "{answer}");
    }
    let mut standing: BTreeSet<&str> = ENDS_S.iter().map(|(id, _)| *id).collect();
    check(&server, &standing, "at first");
    let [day, years] = [DAY_S, 10 * YEAR_S].map(|seconds| i64::try_from(seconds).unwrap());
    // What has ended once is gone, also by a clock that is put back.
    for seconds in [-day, 0, day, 0, day + years, -day] {
        let when = format!("{seconds:+} s from the beginning");
        let ask = half_asked(&server);
        put_clock(home.path(), seconds);
        standing.retain(|wanted| {
            let (_, end) = ENDS_S.iter().find(|(id, _)| id == wanted).unwrap();
            end.is_none_or(|end| i64::try_from(end).unwrap() > seconds)
        });
        check(&server, &standing, &when);
        // Put back at once, perhaps before anything was deleted.
        put_clock(home.path(), -day);
        check(&server, &standing, &format!("{when}, and back"));
        put_clock(home.path(), seconds);
        let answer = ask();
        assert!(answer.starts_with("HTTP/1.1 200"), "{when}: taken for late: {answer}");
        let took = wait_until_deleted(&server, standing.len());
        println!("{when}: {} documents stand; deleted after {} ms", standing.len(), took.as_millis());
        check(&server, &standing, &when);
        server.kill();
        server = start(home.path(), &library);
        check(&server, &standing, &format!("{when}, after kill -9"));
        server.stop();
        server = start(home.path(), &library);
        check(&server, &standing, &format!("{when}, after a stop"));
    }
    server.stop();
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
