//! A log that cannot be written: the server is as manageable as ever, and reports what the log lacks.

use std::{
    fs::File,
    io::{PipeReader, Read as _, Write as _},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ledger::document,
    server::{Server, agent, schema, send_raw},
};

/// Maximum duration of anything.
const PATIENCE: Duration = Duration::from_secs(60);

const DOCUMENTS: u64 = 200;

/// A running server and the key that it accepts.
struct LoggingServer<'a> {
    server: Server,
    home: &'a Path,
    key: String,
}

impl LoggingServer<'_> {
    /// Starts a server that logs as much as possible.
    fn start<'a>(home: &'a Path, log: Stdio, wrapper: &[&str]) -> LoggingServer<'a> {
        let file = home.join("nearfield.toml");
        let key = "key-number-0-of-the-test".to_owned();
        write_key(home, &key);
        let variables = [("NEARFIELD_CONFIG", file.to_str().unwrap()), ("NEARFIELD_LOG", "trace")];
        let mut server = Server::start_logging(home, log, wrapper, &variables);
        server.wait_until_ready();
        LoggingServer { server, home, key }
    }

    /// Sends a request with the current key.
    fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Vec<u8>) {
        self.send_with(&self.key, method, path, body)
    }

    fn send_with(&self, key: &str, method: &str, path: &str, body: &Value) -> (u16, Vec<u8>) {
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        send_raw(&agent(), method, &format!("{}{path}", self.server.address()), &headers, body).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.send("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    }

    /// Log messages that were not written.
    fn lost(&self) -> u64 {
        let (status, text) = self.send("GET", "/metrics", &Value::Null);
        assert_eq!(status, 200);
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("nearfield_log_messages_lost_total "));
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// Sends requests until messages are lost.
    fn lose_messages(&self) {
        let started = Instant::now();
        while self.lost() == 0 {
            assert!(started.elapsed() < PATIENCE, "no message was lost");
        }
    }

    /// Writes documents, replaces the keys twice, rebuilds the collection, and stops.
    fn manage(mut self) {
        assert_eq!(self.send("PUT", "/collections/notes", &schema(16)).0, 201);
        let documents: Vec<Value> =
            (0..DOCUMENTS).map(|number| document(&format!("log-{number}"), number, 1)).collect();
        assert_eq!(self.send("POST", "/collections/notes/documents", &json!(documents)).0, 200);

        for reload in 1..=2 {
            let key = format!("key-number-{reload}-of-the-test");
            write_key(self.home, &key);
            self.server.signal("HUP");
            wait_until(|| self.send_with(&key, "GET", "/stats", &Value::Null).0 == 200);
            let old = std::mem::replace(&mut self.key, key);
            assert_eq!(self.send_with(&old, "GET", "/stats", &Value::Null).0, 401);
        }

        assert_eq!(self.send("PUT", "/collections/notes?rebuild=true", &schema(8)).0, 202);
        wait_until(|| {
            let collection = self.get("/collections/notes");
            collection["rebuilding"] == false && collection["schema"].to_string().contains("\"m\":8")
        });
        assert_eq!(self.get("/collections/notes/count")["count"], DOCUMENTS);

        let started = Instant::now();
        self.server.stop();
        assert!(started.elapsed() < PATIENCE, "stopped after {:?}", started.elapsed());
    }
}

/// Replaces all keys in the configuration file.
fn write_key(home: &Path, key: &str) {
    let text = format!("[[keys]]\nkey = \"{key}\"\nrole = \"admin\"\n");
    std::fs::write(home.join("nearfield.toml"), text).unwrap();
}

fn wait_until(mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() {
        assert!(started.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_reader_of_the_log_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let server = LoggingServer::start(home.path(), writer.into(), &[]);
    reader.read_exact(&mut [0; 100]).unwrap();
    drop(reader);
    server.lose_messages();
    server.manage();
}

/// A pipe that is full for as long as the reader exists and does not read.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    // Blocks once the pipe is full.
    thread::spawn(move || while filling.write_all(&[b'-'; 4096]).is_ok() {});
    (reader, writer.into())
}

#[test]
fn the_reader_of_the_log_does_not_read() {
    let home = tempfile::tempdir().unwrap();
    let (reader, log) = full_pipe();
    let server = LoggingServer::start(home.path(), log, &[]);
    server.lose_messages();
    server.manage();
    drop(reader);
}

#[test]
fn the_disk_of_the_log_is_full() {
    let home = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let server = LoggingServer::start(home.path(), full.into(), &[]);
    server.lose_messages();
    server.manage();
}

#[test]
fn standard_output_and_error_are_closed() {
    let home = tempfile::tempdir().unwrap();
    let wrapper = ["sh", "-c", "exec \"$@\" >&- 2>&-", "sh"];
    LoggingServer::start(home.path(), Stdio::null(), &wrapper).manage();
}

/// A server that does not get as far as serving, too.
#[test]
fn a_start_that_fails_ends_without_a_reader_of_its_message() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("nearfield.toml"), "listen = \"nowhere\"\n").unwrap();
    let (reader, log) = full_pipe();
    let mut server = Server::start_logging(home.path(), log, &[], &[("NEARFIELD_UNKNOWN", "1")]);
    assert_eq!(server.wait().code(), Some(2));
    drop(reader);
}
