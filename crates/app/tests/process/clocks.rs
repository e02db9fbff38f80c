//! Jumps of the system clock, while a server runs and between restarts: expired documents are hidden everywhere, other
//! documents stay, and no request times out early.

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
use testing::requirement::Requirement;

use crate::{
    ledger::vector,
    server::{Server, get, send},
};

const DAY_S: u64 = 24 * 3600;
const YEAR_S: u64 = 365 * DAY_S;
/// Ids of documents and their TTL in seconds.
const TTLS_S: [(&str, Option<u64>); 5] = [
    ("never", None),
    ("in-half-a-day", Some(DAY_S / 2)),
    ("in-two-days", Some(2 * DAY_S)),
    ("in-nine-years", Some(9 * YEAR_S)),
    ("in-eleven-years", Some(11 * YEAR_S)),
];
/// Maximum time until expired documents are deleted: ten times the documented limit.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The path of libfaketime, which changes the time that a process reads; `None` if it is not installed.
fn faketime_library() -> Option<String> {
    let output = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
    Requirement::Tools.find(|| match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        }
        _ => Err("faketime is not installed".to_owned()),
    })
}

/// Sets the clock of a running server to this many seconds after the real time.
fn set_clock(home: &Path, seconds: i64) {
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
            // Setting the system clock does not change the monotonic clock.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    server.wait_until_ready();
    server
}

/// Asserts that get, scroll, search, count and statistics agree that exactly these documents exist.
fn check(server: &Server, existing: &BTreeSet<&str>, when: &str) {
    let get_notes = |path: &str| get(&format!("{}/collections/notes{path}", server.address())).unwrap();
    let ids = |documents: &Value| -> BTreeSet<String> {
        let id = |document: &Value| document["id"].as_str().unwrap().to_owned();
        documents.as_array().unwrap().iter().map(id).collect()
    };
    let expected: BTreeSet<String> = existing.iter().map(|id| (*id).to_owned()).collect();
    for (id, _) in TTLS_S {
        let status = get_notes(&format!("/documents/{id}")).0;
        assert_eq!(status == 200, existing.contains(id), "{id} {when}: {status}");
    }
    let (_, page) = get_notes("/documents?limit=100");
    assert_eq!(ids(&page["documents"]), expected, "{when}: scroll");
    for exact in [false, true] {
        let search = json!({"vector": vector("query", 1), "k": 100, "exact": exact});
        let url = format!("{}/collections/notes/search", server.address());
        let (_, response) = send("POST", &url, &search).unwrap();
        assert_eq!(ids(&response["results"]), expected, "{when}: search, exact {exact}");
    }
    assert_eq!(get_notes("/count").1["count"], existing.len(), "{when}");
    assert_eq!(get_notes("").1["documents"], existing.len(), "{when}");
}

/// Waits until the store has deleted expired documents; returns the time that took.
fn wait_until_deleted(server: &Server, existing: usize) -> Duration {
    let started = Instant::now();
    while get(&format!("{}/stats", server.address())).unwrap().1["documents"] != existing {
        assert!(started.elapsed() < TIMEOUT, "expired documents are not deleted");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

/// Sends half of a search request; the returned function sends the other half and returns the response.
fn send_half_of_a_search(server: &Server) -> impl FnOnce() -> String {
    let mut stream = TcpStream::connect(server.address().strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let body = json!({"vector": vector("query", 1), "k": 1}).to_string();
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
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }
}

#[test]
fn clock_jumps_expire_documents_and_never_restore_expired_ones() {
    let Some(library) = faketime_library() else { return };
    let home = tempfile::tempdir().unwrap();
    set_clock(home.path(), 0);
    let mut server = start(home.path(), &library);
    server.create_collection();
    for (number, (id, ttl_s)) in (0..).zip(TTLS_S) {
        let mut document = json!({"text": "a word", "version": number, "place": vector(id, number)});
        if let Some(ttl_s) = ttl_s {
            document["ttl_s"] = json!(ttl_s);
        }
        let url = format!("{}/collections/notes/documents/{id}", server.address());
        let (status, response) = send("PUT", &url, &document).unwrap();
        assert_eq!(status, 201, "{response}");
    }
    let mut existing: BTreeSet<&str> = TTLS_S.iter().map(|(id, _)| *id).collect();
    check(&server, &existing, "initially");
    let [day, years] = [DAY_S, 10 * YEAR_S].map(|seconds| i64::try_from(seconds).unwrap());
    // An expired document stays deleted, even if the clock is set back.
    for seconds in [-day, 0, day, 0, day + years, -day] {
        let when = format!("clock {seconds:+} s");
        let finish_search = send_half_of_a_search(&server);
        set_clock(home.path(), seconds);
        existing.retain(|name| {
            let (_, ttl_s) = TTLS_S.iter().find(|(id, _)| id == name).unwrap();
            ttl_s.is_none_or(|ttl_s| i64::try_from(ttl_s).unwrap() > seconds)
        });
        check(&server, &existing, &when);
        // Set back immediately, possibly before anything was deleted.
        set_clock(home.path(), -day);
        check(&server, &existing, &format!("{when}, set back"));
        set_clock(home.path(), seconds);
        let response = finish_search();
        assert!(response.starts_with("HTTP/1.1 200"), "{when}: the request timed out: {response}");
        let took = wait_until_deleted(&server, existing.len());
        println!(
            "{when}: {} documents exist; expired ones deleted after {} ms",
            existing.len(),
            took.as_millis()
        );
        check(&server, &existing, &when);
        server.kill();
        server = start(home.path(), &library);
        check(&server, &existing, &format!("{when}, after kill -9"));
        server.stop();
        server = start(home.path(), &library);
        check(&server, &existing, &format!("{when}, after a stop"));
    }
    server.stop();
    let log = fs::read_to_string(home.path().join("log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
