//! Writes of every kind at a constant rate.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{corpus::Document, random::Random, server::Server};

/// Documents per request.
const BATCH: usize = 10;
/// 384 values of four bytes.
const VECTOR_BYTES: usize = 1536;
/// The collection that exists during the whole run.
pub(super) const NAME: &str = "permanent";
/// The collection that is created and dropped repeatedly.
const TEMPORARY: &str = "temporary";
/// TTLs of expiring documents, in seconds.
const TTL_S: std::ops::Range<usize> = 5..60;
/// Batches between two temporary collections.
const BATCHES_PER_TEMPORARY_COLLECTION: usize = 100;

/// Numbers of operations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteCounts {
    pub(super) written: u64,
    pub(super) expiring: u64,
    pub(super) deleted: u64,
    pub(super) collections_dropped: u64,
    /// Requests rejected with status 429 or 503.
    pub(super) rejected: u64,
}

/// The writer and its documents.
pub(super) struct Writer<'d> {
    address: SocketAddr,
    agent: ureq::Agent,
    documents: &'d [Document],
    /// Approximate number of permanent documents.
    permanent: usize,
    seed: u64,
    counts: Mutex<WriteCounts>,
}

impl<'d> Writer<'d> {
    pub(super) fn new(server: &Server, documents: &'d [Document], permanent: usize, seed: u64) -> Writer<'d> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Writer { address: server.address, agent, documents, permanent, seed, counts: Mutex::default() }
    }

    pub(super) fn counts(&self) -> WriteCounts {
        *self.counts.lock().expect("the lock is not poisoned")
    }

    /// Creates the permanent collection and fills it.
    pub(super) fn fill(&self) -> Result<()> {
        let (status, body) = self.send("PUT", &format!("/collections/{NAME}"), &json!({}))?;
        ensure!(status == 201, "{status} {body}");
        for first in (0..self.permanent).step_by(10 * BATCH) {
            let batch = (first..self.permanent).take(10 * BATCH);
            let batch = batch.map(|row| self.document(row, row, None)).collect();
            self.put(NAME, batch)?;
        }
        Ok(())
    }

    /// Writes `rate` documents per second until `stopping` is set.
    pub(super) fn run(&self, rate: f64, stopping: &AtomicBool) -> Result<()> {
        let mut random = Random::new(self.seed);
        let pause = Duration::from_secs_f64(BATCH as f64 / rate);
        let mut due = Instant::now();
        for batch in 1.. {
            if stopping.load(Ordering::Relaxed) {
                break;
            }
            match random.below(4) {
                // Overwrite existing documents.
                0 | 1 => {
                    let rows = (0..BATCH).map(|_| {
                        self.document(random.below(self.permanent), self.random_row(&mut random), None)
                    });
                    self.put(NAME, rows.collect())?;
                }
                // Insert documents that expire.
                2 => {
                    let rows = (0..BATCH).map(|_| {
                        let ttl_s = TTL_S.start + random.below(TTL_S.len());
                        let row = self.random_row(&mut random);
                        self.document(self.permanent + row, row, Some(ttl_s))
                    });
                    self.put(NAME, rows.collect())?;
                    self.count(|counts| counts.expiring += BATCH as u64);
                }
                // Delete documents and insert as many.
                _ => {
                    let ids: Vec<usize> = (0..BATCH).map(|_| random.below(self.permanent)).collect();
                    for id in &ids {
                        self.delete(&format!("/collections/{NAME}/documents/{id}"))?;
                    }
                    let back =
                        ids.iter().map(|id| self.document(*id, self.random_row(&mut random), None)).collect();
                    self.put(NAME, back)?;
                }
            }
            if batch % BATCHES_PER_TEMPORARY_COLLECTION == 0 {
                self.cycle_collection(&mut random)?;
            }
            due += pause;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Creates a collection, fills it, searches it and drops it with its documents.
    fn cycle_collection(&self, random: &mut Random) -> Result<()> {
        let path = format!("/collections/{TEMPORARY}");
        let (status, body) = self.send("PUT", &path, &json!({}))?;
        ensure!(status == 201, "{status} {body}");
        let rows: Vec<usize> = (0..5 * BATCH).map(|_| self.random_row(random)).collect();
        self.put(
            TEMPORARY,
            rows.iter().enumerate().map(|(id, row)| self.document(id, *row, None)).collect(),
        )?;
        let search = json!({"text": self.documents[rows[0]].text, "k": 1});
        let (status, found) = self.send("POST", &format!("{path}/search"), &search)?;
        // 503 is a valid response under load.
        ensure!(status == 503 || found["results"][0].is_object(), "{status} {found}");
        self.delete(&format!("{path}?documents=delete"))?;
        self.count(|counts| counts.collections_dropped += 1);
        Ok(())
    }

    /// A random row to take a text from.
    fn random_row(&self, random: &mut Random) -> usize {
        random.below(self.documents.len())
    }

    fn document(&self, id: usize, row: usize, ttl_s: Option<usize>) -> Value {
        let text = &self.documents[row].text;
        let mut document = json!({"id": id.to_string(), "title": format!("Package {row}"), "content": text});
        if let Some(ttl_s) = ttl_s {
            document["ttl_s"] = ttl_s.into();
        }
        document
    }

    fn put(&self, collection: &str, documents: Vec<Value>) -> Result<()> {
        let count = documents.len() as u64;
        let path = format!("/collections/{collection}/documents");
        let (status, body) = self.send("POST", &path, &Value::from(documents))?;
        ensure!(status == 503 || (status == 200 && body["errors"] == 0), "{status} {body}");
        if status == 200 {
            self.count(|counts| counts.written += count);
        }
        Ok(())
    }

    fn delete(&self, path: &str) -> Result<()> {
        let (status, body) = self.send("DELETE", path, &Value::Null)?;
        // 404: the same document may be drawn twice.
        ensure!(matches!(status, 200 | 204 | 404 | 503), "DELETE {path}: {status} {body}");
        if status < 300 {
            self.count(|counts| counts.deleted += 1);
        }
        Ok(())
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(if body.is_null() { String::new() } else { body.to_string() })?;
        let mut reply = self.agent.run(request).with_context(|| format!("{method} {path}"))?;
        let status = reply.status().as_u16();
        if matches!(status, 429 | 503) {
            self.count(|counts| counts.rejected += 1);
        }
        let text = reply.body_mut().read_to_string()?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    fn count(&self, change: impl FnOnce(&mut WriteCounts)) {
        change(&mut self.counts.lock().expect("the lock is not poisoned"));
    }

    /// The current number of documents.
    pub(super) fn documents(&self) -> Result<u64> {
        let (status, info) = self.send("GET", &format!("/collections/{NAME}"), &Value::Null)?;
        info["documents"].as_u64().with_context(|| {
            format!("the collection's description has no number of documents: {status} {info}")
        })
    }

    /// Mean bytes of text and vector per document.
    pub(super) fn live_bytes_mean(&self) -> f64 {
        let text = self.documents.iter().map(|document| document.text.len()).sum::<usize>();
        text as f64 / self.documents.len() as f64 + VECTOR_BYTES as f64
    }
}
