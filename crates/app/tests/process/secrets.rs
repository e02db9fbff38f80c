//! Keys and passwords, passed in every supported form, never appear in a log at the most verbose level.

use std::{path::Path, time::Duration};

use serde_json::Value;

use crate::server::{self, Server, agent};

/// Distinct, so that any fragment identifies its key.
const ADMIN: &str = "admin-6f1c0e8a94d24b7e";
const WRITER: &str = "write-b38d5a7710c94f2e";
const READER: &str = "read-20e9c47f6ab14d83";
const LISTED: &str = "listed-95b7e3d1086c4a2f";
const WRONG: &str = "wrong-c2f80b6d7e914a35";
const PASSWORD: &str = "password-4a7de1906bf3";

/// Sends a request and returns the status and the body.
fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let (status, bytes) = server::send_raw(&agent(), method, url, headers, body.to_owned()).unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// The complete output of the process.
fn log(home: &Path) -> String {
    std::fs::read_to_string(home.join("log")).unwrap()
}

#[test]
fn a_trace_log_contains_no_key() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("nearfield.toml");
    let table = format!("[[keys]]\nkey = \"{LISTED}\"\nrole = \"read\"\ncollections = [\"notes\"]\n");
    std::fs::write(&file, table).unwrap();
    let variables = [
        ("NEARFIELD_CONFIG", file.to_str().unwrap()),
        ("NEARFIELD_LOG", "trace"),
        ("NEARFIELD_API_KEY", ADMIN),
        ("NEARFIELD_WRITE_KEY", WRITER),
        ("NEARFIELD_READ_KEY", READER),
    ];
    let mut server = Server::start_with(home.path(), &[], &variables);
    server.wait_until_ready();
    let mut responses = String::new();
    let (status, api) =
        send("GET", &format!("{}/openapi.json", server.address()), &[("x-api-key", READER)], "");
    assert_eq!(status, 200, "{api}");
    let api: Value = serde_json::from_str(&api).unwrap();
    let mut requests = 0;
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            if !["GET", "PUT", "POST", "PATCH", "DELETE"].contains(&&*method) {
                continue;
            }
            let path = path.replace("{c}", "notes").replace("{id}", "one").replace("{a}", "other");
            let url = format!("{}{path}", server.address());
            for key in [ADMIN, WRITER, READER, LISTED] {
                let bearer = format!("Bearer {key}");
                let json = ("content-type", "application/json");
                for headers in [&[json, ("authorization", &*bearer)][..], &[json, ("x-api-key", key)]] {
                    responses +=
                        &send(&method, &url, headers, r#"{"fields":[{"name":"n","kind":"numeric"}]}"#).1;
                    requests += 1;
                }
            }
        }
    }
    // Keys in unsupported places, and wrong keys.
    let search = format!("{}/search", server.address());
    for key in [ADMIN, READER, WRONG] {
        responses += &send("GET", &format!("{search}?q=a&api_key={key}"), &[("x-api-key", READER)], "").1;
        responses += &send("GET", &search, &[("authorization", &format!("Basic {key}"))], "").1;
        responses +=
            &send("GET", &search, &[("x-api-key", key), ("authorization", &format!("Bearer {WRONG}"))], "").1;
    }
    responses += &send("GET", &search, &[("x-api-key", WRONG)], "").1;
    server.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    responses += &send("GET", &format!("{}/metrics", server.address()), &[("x-api-key", READER)], "").1;
    server.stop();
    let log = log(home.path());
    let lines = log.lines().count();
    println!("{requests} requests with a key each, {lines} lines of log");
    assert!(requests > 200 && lines > requests, "{requests} requests, {lines} lines: the log is incomplete");
    for secret in [ADMIN, WRITER, READER, LISTED, WRONG] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
        assert!(!responses.contains(secret), "{secret} is in a response");
    }
}

#[test]
fn a_log_never_contains_the_redis_password() {
    let home = tempfile::tempdir().unwrap();
    let store = format!("redis://somebody:{PASSWORD}@127.0.0.1:1");
    let mut server =
        Server::start_with(home.path(), &[], &[("NEARFIELD_STORE", &store), ("NEARFIELD_LOG", "trace")]);
    let started = std::time::Instant::now();
    // No Redis listens there, so the connection error is logged repeatedly.
    while log(home.path()).matches("127.0.0.1:1").count() < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", log(home.path()));
        std::thread::sleep(Duration::from_millis(50));
    }
    server.kill();
    let log = log(home.path());
    let line = log.lines().find(|line| line.contains(PASSWORD));
    assert_eq!(line, None, "the password is in the log");
}
