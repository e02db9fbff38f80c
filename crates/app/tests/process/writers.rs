//! Writers that run until the server stops responding.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::Value;
use testing::stop_on_drop::StopOnDrop;

use crate::{
    ledger::{Ledger, State},
    random::Random,
    server::{schema, send, send_as},
};

/// Documents per writer.
const DOCUMENTS: u64 = 2000;
/// Documents per batch.
const BATCH: u64 = 250;
/// One in this many single writes is a deletion.
const DELETES: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum WriteMode {
    /// NDJSON over HTTP.
    Batch,
    /// PUT, PATCH and DELETE.
    Single,
    /// `nearfield index` against the server.
    Index,
}

pub(crate) struct Writer {
    mode: WriteMode,
    pub(crate) ledger: Ledger,
    random: Random,
}

impl Writer {
    pub(crate) fn all(seed: u64) -> Vec<Writer> {
        let modes = [
            ("batch", WriteMode::Batch),
            ("other-batch", WriteMode::Batch),
            ("single", WriteMode::Single),
            ("index", WriteMode::Index),
        ];
        let numbered = modes.into_iter().zip(1..);
        numbered
            .map(|((name, mode), number)| Writer {
                mode,
                ledger: Ledger::new(name),
                random: Random::new(seed.wrapping_add(number)),
            })
            .collect()
    }

    /// Writes until the server stops responding; returns the number of acknowledged writes.
    fn run(&mut self, address: &str, home: &Path, round: u64, stopping: &AtomicBool) -> u64 {
        let mut acknowledged = 0;
        while !stopping.load(Ordering::Relaxed) {
            let written = match self.mode {
                WriteMode::Batch => self.write_batch(address),
                WriteMode::Single => self.write_single(address),
                WriteMode::Index => self.run_index(home, round),
            };
            match written {
                Some(count) => acknowledged += count,
                None => break,
            }
        }
        acknowledged
    }

    /// Begins a write of a new version for up to `count` documents without a pending write.
    fn begin_writes(&mut self, count: u64) -> Vec<(u64, u64)> {
        let mut batch = Vec::new();
        for _ in 0..count {
            let Some(number) = self.ledger.random_without_pending_write(DOCUMENTS, &mut self.random) else {
                break;
            };
            let version = self.ledger.next_version();
            self.ledger.begin(number, Some(version));
            batch.push((number, version));
        }
        batch
    }

    fn lines(&self, batch: &[(u64, u64)]) -> String {
        batch
            .iter()
            .map(|(number, version)| format!("{}\n", self.ledger.document(*number, *version)))
            .collect()
    }

    fn write_batch(&mut self, address: &str) -> Option<u64> {
        let batch = self.begin_writes(BATCH);
        let url = format!("{address}/collections/notes/documents");
        let (status, response) = send_as("POST", &url, "application/x-ndjson", self.lines(&batch)).ok()?;
        if status != 200 {
            // Rejected as overloaded or interrupted: either state of the documents is valid.
            return None;
        }
        let results = response["results"].as_array()?;
        assert_eq!(results.len(), batch.len(), "{response}");
        let mut count = 0;
        for (result, (number, _)) in results.iter().zip(&batch) {
            if result["error"].is_null() {
                self.ledger.acknowledge(*number);
                count += 1;
            }
        }
        Some(count)
    }

    fn write_single(&mut self, address: &str) -> Option<u64> {
        let number = self.ledger.random_without_pending_write(DOCUMENTS, &mut self.random)?;
        let url = format!("{address}/collections/notes/documents/{}", self.ledger.id(number));
        let exists = self.ledger.exists(number);
        let state: State =
            if exists && self.random.below(DELETES) == 0 { None } else { Some(self.ledger.next_version()) };
        self.ledger.begin(number, state);
        let (method, body) = match state {
            None => ("DELETE", Value::Null),
            Some(version) => {
                let document = self.ledger.document(number, version);
                (if exists && version.is_multiple_of(2) { "PATCH" } else { "PUT" }, document)
            }
        };
        let (status, response) = send(method, &url, &body).ok()?;
        match status {
            200 | 201 | 204 => {
                self.ledger.acknowledge(number);
                Some(1)
            }
            503 => None,
            _ => panic!("{method} {url}: {status} {response}"),
        }
    }

    fn run_index(&mut self, home: &Path, round: u64) -> Option<u64> {
        let batch = self.begin_writes(BATCH);
        let (file, acks) = (home.join("rows.jsonl"), home.join(format!("acks-{round}")));
        let _ = fs::remove_file(&acks);
        fs::write(&file, self.lines(&batch)).unwrap();
        let status = Command::new(assert_cmd::cargo::cargo_bin!("nearfield"))
            .args(["index", file.to_str().unwrap(), "--collection", "notes", "--batch-size", "50"])
            .args(["--acks", acks.to_str().unwrap(), "--quiet"])
            .env("NEARFIELD_HOME", home)
            .env_remove("NEARFIELD_URL")
            .env_remove("NEARFIELD_DATA_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let acknowledged = fs::read_to_string(&acks).unwrap_or_default();
        // An incomplete line is not an acknowledgement.
        let complete_lines = acknowledged.rfind('\n').map_or("", |end| &acknowledged[..end]);
        let mut count = 0;
        for id in complete_lines.lines() {
            let number = id.strip_prefix("index-").unwrap().parse().unwrap();
            self.ledger.acknowledge(number);
            count += 1;
        }
        let _ = fs::remove_file(&acks);
        status.success().then_some(count).or((count > 0).then_some(count))
    }
}

/// Runs all writers, optionally while the collection is rebuilt repeatedly, until `end` returns; returns the number
/// of acknowledged writes.
pub(crate) fn run_until(
    writers: &mut [Writer],
    address: &str,
    home: &Path,
    round: u64,
    rebuilding: bool,
    end: impl FnOnce(),
) -> u64 {
    let stopping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, stopping) = (StopOnDrop(&stopping), &stopping);
        let running: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(move || writer.run(address, home, round, stopping)))
            .collect();
        if rebuilding {
            scope.spawn(move || rebuild(address, stopping));
        }
        end();
        drop(stop);
        running.into_iter().map(|writer| writer.join().unwrap()).sum()
    })
}

/// Rebuilds the collection online repeatedly, alternating the number of links.
fn rebuild(address: &str, stopping: &AtomicBool) {
    let url = format!("{address}/collections/notes?rebuild=true");
    for m in [8, 16].into_iter().cycle() {
        // The server rejects a rebuild while another one is running.
        if stopping.load(Ordering::Relaxed) || send("PUT", &url, &schema(m)).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
