//! Those who write until the server is gone.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::Value;

use crate::{
    ledger::{Ledger, State},
    random::Random,
    server::{schema, send, send_as},
};

/// Documents each writer has.
const DOCUMENTS: u64 = 2000;
/// Documents of a bulk write.
const BULK: u64 = 250;
/// Of the single writes, one in so many deletes.
const DELETES: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Way {
    /// NDJSON over HTTP.
    Bulk,
    /// PUT, PATCH and DELETE.
    Single,
    /// `nearfield index`, which asks the server.
    Index,
}

pub(crate) struct Writer {
    way: Way,
    pub(crate) ledger: Ledger,
    random: Random,
}

impl Writer {
    pub(crate) fn all(seed: u64) -> Vec<Writer> {
        let ways = [("bulk", Way::Bulk), ("more", Way::Bulk), ("single", Way::Single), ("index", Way::Index)];
        let numbered = ways.into_iter().zip(1..);
        numbered
            .map(|((name, way), number)| Writer {
                way,
                ledger: Ledger::new(name),
                random: Random::new(seed.wrapping_add(number)),
            })
            .collect()
    }

    /// Writes until the server does not answer; says how many writes were acknowledged.
    fn run(&mut self, address: &str, home: &Path, round: u64, stopping: &AtomicBool) -> u64 {
        let mut acknowledged = 0;
        while !stopping.load(Ordering::Relaxed) {
            let written = match self.way {
                Way::Bulk => self.bulk(address),
                Way::Single => self.single(address),
                Way::Index => self.index(home, round),
            };
            match written {
                Some(count) => acknowledged += count,
                None => break,
            }
        }
        acknowledged
    }

    /// Some documents that nothing is asked of, each asked for in a new version.
    fn ask_for(&mut self, count: u64) -> Vec<(u64, u64)> {
        let mut asked = Vec::new();
        for _ in 0..count {
            let Some(number) = self.ledger.any_settled(DOCUMENTS, &mut self.random) else { break };
            let version = self.ledger.version();
            self.ledger.ask(number, Some(version));
            asked.push((number, version));
        }
        asked
    }

    fn lines(&self, asked: &[(u64, u64)]) -> String {
        asked
            .iter()
            .map(|(number, version)| format!("{}\n", self.ledger.document(*number, *version)))
            .collect()
    }

    fn bulk(&mut self, address: &str) -> Option<u64> {
        let asked = self.ask_for(BULK);
        let url = format!("{address}/collections/notes/documents");
        let (status, answer) = send_as("POST", &url, "application/x-ndjson", self.lines(&asked)).ok()?;
        if status != 200 {
            // Refused for want of room, or cut off: whatever is there will do.
            return None;
        }
        let results = answer["results"].as_array()?;
        assert_eq!(results.len(), asked.len(), "{answer}");
        let mut count = 0;
        for (result, (number, _)) in results.iter().zip(&asked) {
            if result["error"].is_null() {
                self.ledger.acknowledge(*number);
                count += 1;
            }
        }
        Some(count)
    }

    fn single(&mut self, address: &str) -> Option<u64> {
        let number = self.ledger.any_settled(DOCUMENTS, &mut self.random)?;
        let url = format!("{address}/collections/notes/documents/{}", self.ledger.id(number));
        let stands = self.ledger.stands(number);
        let state: State =
            if stands && self.random.below(DELETES) == 0 { None } else { Some(self.ledger.version()) };
        self.ledger.ask(number, state);
        let (method, body) = match state {
            None => ("DELETE", Value::Null),
            Some(version) => {
                let document = self.ledger.document(number, version);
                (if stands && version.is_multiple_of(2) { "PATCH" } else { "PUT" }, document)
            }
        };
        let (status, answer) = send(method, &url, &body).ok()?;
        match status {
            200 | 201 | 204 => {
                self.ledger.acknowledge(number);
                Some(1)
            }
            503 => None,
            _ => panic!("{method} {url}: {status} {answer}"),
        }
    }

    fn index(&mut self, home: &Path, round: u64) -> Option<u64> {
        let asked = self.ask_for(BULK);
        let (file, acks) = (home.join("rows.jsonl"), home.join(format!("acks-{round}")));
        let _ = fs::remove_file(&acks);
        fs::write(&file, self.lines(&asked)).unwrap();
        let done = Command::new(assert_cmd::cargo::cargo_bin!("nearfield"))
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
        let told = fs::read_to_string(&acks).unwrap_or_default();
        // A line without its end was not acknowledged.
        let whole = told.rfind('\n').map_or("", |end| &told[..end]);
        let mut count = 0;
        for id in whole.lines() {
            let number = id.strip_prefix("index-").unwrap().parse().unwrap();
            self.ledger.acknowledge(number);
            count += 1;
        }
        let _ = fs::remove_file(&acks);
        done.success().then_some(count).or((count > 0).then_some(count))
    }
}

/// Has all write, and the collection rebuilt all the while if that is wanted, until `end` has come; says how many writes
/// were acknowledged.
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
        let stopping = &stopping;
        let running: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(move || writer.run(address, home, round, stopping)))
            .collect();
        if rebuilding {
            scope.spawn(move || rebuild(address, stopping));
        }
        end();
        stopping.store(true, Ordering::Relaxed);
        running.into_iter().map(|writer| writer.join().unwrap()).sum()
    })
}

/// Has the collection rebuilt beside itself over and over, with more and with fewer links.
fn rebuild(address: &str, stopping: &AtomicBool) {
    let url = format!("{address}/collections/notes?rebuild=true");
    for m in [8, 16].into_iter().cycle() {
        // A rebuild that is still under way refuses the next one.
        if stopping.load(Ordering::Relaxed) || send("PUT", &url, &schema(m)).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
