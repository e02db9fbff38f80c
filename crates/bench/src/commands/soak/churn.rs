//! Writes of every kind, at a steady pace.

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

/// Documents of one request.
const BATCH: usize = 10;
/// 384 values of four bytes.
const VECTOR_BYTES: usize = 1536;
/// The collection that stands.
pub(super) const NAME: &str = "standing";
/// One that comes and goes.
const PASSING: &str = "passing";
/// Lives of documents that expire, in seconds.
const TTL_S: std::ops::Range<usize> = 5..60;
/// Batches between two collections that come and go.
const BATCHES_A_COLLECTION: usize = 100;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) written: u64,
    pub(super) expiring: u64,
    pub(super) deleted: u64,
    pub(super) collections: u64,
    /// Requests answered by 429 or 503.
    pub(super) refused: u64,
}

/// The writer and what it writes.
pub(super) struct Churn<'d> {
    address: SocketAddr,
    agent: ureq::Agent,
    documents: &'d [Document],
    /// Documents that stand at any time, about.
    standing: usize,
    seed: u64,
    counts: Mutex<Counts>,
}

impl<'d> Churn<'d> {
    pub(super) fn new(server: &Server, documents: &'d [Document], standing: usize, seed: u64) -> Churn<'d> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Churn { address: server.address, agent, documents, standing, seed, counts: Mutex::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        *self.counts.lock().expect("nobody panics holding it")
    }

    /// Makes the collection that stands and fills it.
    pub(super) fn fill(&self) -> Result<()> {
        let (status, body) = self.send("PUT", &format!("/collections/{NAME}"), &json!({}))?;
        ensure!(status == 201, "{status} {body}");
        for first in (0..self.standing).step_by(10 * BATCH) {
            let batch = (first..self.standing).take(10 * BATCH);
            let batch = batch.map(|row| self.document(row, row, None)).collect();
            self.put(NAME, batch)?;
        }
        Ok(())
    }

    /// Writes `rate` documents a second until told to stop.
    pub(super) fn run(&self, rate: f64, stopping: &AtomicBool) -> Result<()> {
        let mut random = Random::new(self.seed);
        let pause = Duration::from_secs_f64(BATCH as f64 / rate);
        let mut due = Instant::now();
        for batch in 1.. {
            if stopping.load(Ordering::Relaxed) {
                break;
            }
            match random.below(4) {
                // Other texts under standing ids.
                0 | 1 => {
                    let rows = (0..BATCH)
                        .map(|_| self.document(random.below(self.standing), self.any(&mut random), None));
                    self.put(NAME, rows.collect())?;
                }
                // Documents that end by themselves.
                2 => {
                    let rows = (0..BATCH).map(|_| {
                        let ttl_s = TTL_S.start + random.below(TTL_S.len());
                        let row = self.any(&mut random);
                        self.document(self.standing + row, row, Some(ttl_s))
                    });
                    self.put(NAME, rows.collect())?;
                    self.count(|counts| counts.expiring += BATCH as u64);
                }
                // Deletes, and as many back.
                _ => {
                    let ids: Vec<usize> = (0..BATCH).map(|_| random.below(self.standing)).collect();
                    for id in &ids {
                        self.delete(&format!("/collections/{NAME}/documents/{id}"))?;
                    }
                    let back = ids.iter().map(|id| self.document(*id, self.any(&mut random), None)).collect();
                    self.put(NAME, back)?;
                }
            }
            if batch % BATCHES_A_COLLECTION == 0 {
                self.come_and_go(&mut random)?;
            }
            due += pause;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// A collection made, filled, searched and dropped with its documents.
    fn come_and_go(&self, random: &mut Random) -> Result<()> {
        let path = format!("/collections/{PASSING}");
        let (status, body) = self.send("PUT", &path, &json!({}))?;
        ensure!(status == 201, "{status} {body}");
        let rows: Vec<usize> = (0..5 * BATCH).map(|_| self.any(random)).collect();
        self.put(PASSING, rows.iter().enumerate().map(|(id, row)| self.document(id, *row, None)).collect())?;
        let question = json!({"text": self.documents[rows[0]].text, "k": 1});
        let (status, found) = self.send("POST", &format!("{path}/search"), &question)?;
        // 503: shed under load, which is an answer.
        ensure!(status == 503 || found["results"][0].is_object(), "{status} {found}");
        self.delete(&format!("{path}?documents=delete"))?;
        self.count(|counts| counts.collections += 1);
        Ok(())
    }

    /// A row to take a text from.
    fn any(&self, random: &mut Random) -> usize {
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
        // Deleted before: the same document may be drawn twice.
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
            self.count(|counts| counts.refused += 1);
        }
        let text = reply.body_mut().read_to_string()?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().expect("nobody panics holding it"));
    }

    /// Documents that stand now.
    pub(super) fn documents(&self) -> Result<u64> {
        let (status, info) = self.send("GET", &format!("/collections/{NAME}"), &Value::Null)?;
        info["documents"].as_u64().with_context(|| format!("no count of documents: {status} {info}"))
    }

    /// Bytes of a document as its user counts them, text and vector, on average.
    pub(super) fn live_bytes_mean(&self) -> f64 {
        let text = self.documents.iter().map(|document| document.text.len()).sum::<usize>();
        text as f64 / self.documents.len() as f64 + VECTOR_BYTES as f64
    }
}
