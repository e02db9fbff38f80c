//! Sends a batch and waits until it is committed.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::http::Method;
use serde::Deserialize;

use super::row::{Rejected, Row};
use crate::cli::{
    client::{Call, Client, Path, Refusal, Reply},
    terminal::Terminal,
};

/// Waits in a row without one document getting through, before it is given up.
const WAITS_MAX: u32 = 60;
/// Longest wait, whatever the server asks for.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Created,
    Updated,
    Unchanged,
    Error,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<DocumentResult>,
}

#[derive(Deserialize)]
struct DocumentResult {
    status: Status,
    #[serde(default)]
    truncated: bool,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    status: u16,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: String,
}

/// What became of a batch's rows.
#[derive(Debug, Default)]
pub(crate) struct Posted {
    /// Committed ids.
    pub(crate) committed: Vec<String>,
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) unchanged: u64,
    /// Texts longer than the model reads.
    pub(crate) truncated: u64,
    pub(crate) rejected: Vec<Rejected>,
    /// Why nothing more can be sent, if so; rows that are neither committed nor rejected are not in.
    pub(crate) failure: Option<anyhow::Error>,
}

/// Where documents go.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    pub(crate) client: &'a Client,
    pub(crate) collection: &'a str,
    pub(crate) terminal: Terminal,
    /// Set when waiting is to end.
    pub(crate) interrupted: &'a AtomicBool,
}

impl Post<'_> {
    /// Sends rows until each is committed or rejected, waiting where the server asks for it, and
    /// fewer at once where they take it too long.
    pub(crate) fn send(&self, mut rows: Vec<Row>) -> Posted {
        let mut posted = Posted::default();
        let mut waits = 0;
        let mut at_once = rows.len();
        while !rows.is_empty() {
            let rest = rows.split_off(at_once.min(rows.len()));
            let before = rows.len();
            let wait = match self.attempt(&mut rows, &mut posted) {
                Ok(None) => {
                    (rows, waits) = (rest, 0);
                    continue;
                }
                Ok(Some(wait)) => wait,
                Err(failure) => {
                    posted.failure = Some(failure);
                    return posted;
                }
            };
            waits = if rows.len() < before { 1 } else { waits + 1 };
            rows.extend(rest);
            let reason = &wait.reason;
            if waits > WAITS_MAX {
                let text = format!("the server took no documents after {WAITS_MAX} tries");
                posted.failure = Some(anyhow::Error::new(wait.reason).context(text));
                return posted;
            }
            if reason.status == 504 && before > 1 {
                at_once = before / 2;
                self.terminal.note(format_args!(
                    "{before} documents take too long ({reason}): sending {at_once} at once"
                ));
            } else if waits == 1 {
                self.terminal.note(format_args!("the server is busy ({reason}): waiting"));
            }
            if !self.sleep(wait.time) {
                return posted;
            }
        }
        posted
    }

    /// One request. Leaves in `rows` what has to be sent again.
    fn attempt(&self, rows: &mut Vec<Row>, posted: &mut Posted) -> anyhow::Result<Option<Wait>> {
        let mut body = Vec::with_capacity(rows.iter().map(|row| row.json.len() + 1).sum());
        for row in rows.iter() {
            body.extend_from_slice(row.json.as_bytes());
            body.push(b'\n');
        }
        let path = Path::collection(self.collection).segment("documents");
        let body = Some(("application/x-ndjson", body.as_slice()));
        let reply = self.client.call(&Call { method: Method::POST, path: path.as_ref(), body })?;
        if matches!(reply.status, 429 | 503 | 504) {
            return Ok(Some(Wait::of(&reply)));
        }
        let answer: Answer = reply.accept()?.json()?;
        if answer.results.len() != rows.len() {
            bail!("the server answered with {} results for {} documents", answer.results.len(), rows.len());
        }
        let mut again = Vec::new();
        let mut wait = None;
        let mut failure = None;
        for (row, result) in std::mem::take(rows).into_iter().zip(answer.results) {
            posted.truncated += u64::from(result.truncated);
            match result.status {
                Status::Created => posted.created += 1,
                Status::Updated => posted.updated += 1,
                Status::Unchanged => posted.unchanged += 1,
                Status::Error => {
                    let problem = result
                        .error
                        .with_context(|| format!("the server refused {:?} without a reason", row.id))?;
                    match problem.status {
                        429 | 503 | 504 => {
                            wait = Some(Wait { time: Duration::from_secs(1), reason: problem.into() });
                            again.push(row);
                        }
                        400..500 => {
                            let Row { place, id, raw, .. } = row;
                            posted.rejected.push(Rejected {
                                place,
                                id: Some(id),
                                reason: problem.detail,
                                raw,
                            });
                        }
                        _ => failure = Some(Refusal::from(problem)),
                    }
                    continue;
                }
            }
            posted.committed.push(row.id);
        }
        *rows = again;
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(wait),
        }
    }

    /// Sleeps in small steps; `false` if interrupted.
    fn sleep(&self, time: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() {
            if self.interrupted.load(Relaxed) {
                return false;
            }
            thread::sleep(left.min(STEP));
            left = left.saturating_sub(STEP);
        }
        true
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal { status: problem.status, code: problem.code, detail: problem.detail }
    }
}

/// The server wants to be asked again later.
struct Wait {
    time: Duration,
    reason: Refusal,
}

impl Wait {
    fn of(reply: &Reply) -> Wait {
        let time =
            reply.retry_after.unwrap_or(Duration::from_secs(1)).clamp(Duration::from_millis(100), WAIT_MAX);
        Wait { time, reason: reply.refusal() }
    }
}
