//! Sends a batch and retries until it is committed.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::http::Method;
use serde::Deserialize;

use super::row::{DocumentRow, RejectedRow};
use crate::cli::{
    client::{ApiPath, ApiRequest, ApiResponse, Client},
    error::ApiError,
    terminal::Terminal,
};

/// Retries without progress before giving up.
const RETRIES_MAX: u32 = 60;
/// Maximum delay before a retry.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// The outcome of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DocumentStatus {
    Created,
    Updated,
    Unchanged,
    Error,
}

/// How a document was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    Created,
    Updated,
    /// It already existed with the same content.
    Unchanged,
}

#[derive(Deserialize)]
struct BulkResponse {
    results: Vec<DocumentResult>,
}

#[derive(Deserialize)]
struct DocumentResult {
    status: DocumentStatus,
    #[serde(default)]
    truncated: bool,
    error: Option<DocumentError>,
}

#[derive(Deserialize)]
struct DocumentError {
    status: u16,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: String,
}

/// The outcome of a batch.
#[derive(Debug, Default)]
pub(crate) struct BatchOutcome {
    /// Ids of committed documents, and how each was committed.
    pub(crate) committed: Vec<(String, Committed)>,
    /// Documents longer than the model's input.
    pub(crate) truncated: u64,
    pub(crate) rejected: Vec<RejectedRow>,
    /// Why sending must stop. Rows that are neither committed nor rejected were not indexed.
    pub(crate) failure: Option<anyhow::Error>,
}

/// Sends batches to a collection.
#[derive(Debug)]
pub(crate) struct BatchSender<'a> {
    pub(crate) client: &'a Client,
    pub(crate) collection: &'a str,
    pub(crate) terminal: Terminal,
    /// Set to stop waiting.
    pub(crate) interrupted: &'a AtomicBool,
}

impl BatchSender<'_> {
    /// Sends rows until each is committed or rejected. Waits if the server is overloaded, and sends fewer rows per
    /// request if requests time out.
    pub(crate) fn send(&self, mut rows: Vec<DocumentRow>) -> BatchOutcome {
        let mut outcome = BatchOutcome::default();
        let mut retries = 0;
        let mut request_len = rows.len();
        while !rows.is_empty() {
            let rest = rows.split_off(request_len.min(rows.len()));
            let before = rows.len();
            let wait = match self.send_once(&mut rows, &mut outcome) {
                Ok(None) => {
                    (rows, retries) = (rest, 0);
                    continue;
                }
                Ok(Some(wait)) => wait,
                Err(failure) => {
                    outcome.failure = Some(failure);
                    return outcome;
                }
            };
            retries = if rows.len() < before { 1 } else { retries + 1 };
            rows.extend(rest);
            let reason = &wait.reason;
            if retries > RETRIES_MAX {
                let text = format!("the server accepted no documents in {RETRIES_MAX} attempts");
                outcome.failure = Some(anyhow::Error::new(wait.reason).context(text));
                return outcome;
            }
            if reason.status == 504 && before > 1 {
                request_len = before / 2;
                self.terminal.note(format_args!(
                    "{before} documents per request time out ({reason}): sending {request_len} per request"
                ));
            } else if retries == 1 {
                self.terminal.note(format_args!("the server is overloaded ({reason}): waiting"));
            }
            if !self.sleep(wait.time) {
                return outcome;
            }
        }
        outcome
    }

    /// Sends one request. Leaves the rows to retry in `rows`.
    fn send_once(
        &self,
        rows: &mut Vec<DocumentRow>,
        outcome: &mut BatchOutcome,
    ) -> anyhow::Result<Option<RetryLater>> {
        let mut body = Vec::with_capacity(rows.iter().map(|row| row.json.len() + 1).sum());
        for row in rows.iter() {
            body.extend_from_slice(row.json.as_bytes());
            body.push(b'\n');
        }
        let path = ApiPath::collection(self.collection).segment("documents");
        let body = Some(("application/x-ndjson", body.as_slice()));
        let response =
            self.client.execute(&ApiRequest { method: Method::POST, path: path.as_ref(), body })?;
        if matches!(response.status, 429 | 503 | 504) {
            return Ok(Some(RetryLater::of(&response)));
        }
        let response: BulkResponse = response.error_for_status()?.json()?;
        if response.results.len() != rows.len() {
            bail!("the server returned {} results for {} documents", response.results.len(), rows.len());
        }
        let mut again = Vec::new();
        let mut wait = None;
        let mut failure = None;
        for (row, result) in std::mem::take(rows).into_iter().zip(response.results) {
            outcome.truncated += u64::from(result.truncated);
            match result.status {
                DocumentStatus::Created => outcome.committed.push((row.id, Committed::Created)),
                DocumentStatus::Updated => outcome.committed.push((row.id, Committed::Updated)),
                DocumentStatus::Unchanged => outcome.committed.push((row.id, Committed::Unchanged)),
                DocumentStatus::Error => {
                    let error = result
                        .error
                        .with_context(|| format!("the server rejected {:?} without a reason", row.id))?;
                    match error.status {
                        429 | 503 | 504 => {
                            wait = Some(RetryLater { time: Duration::from_secs(1), reason: error.into() });
                            again.push(row);
                        }
                        400..500 => {
                            let DocumentRow { location, id, raw, .. } = row;
                            outcome.rejected.push(RejectedRow {
                                location,
                                id: Some(id),
                                reason: error.detail,
                                raw,
                            });
                        }
                        _ => failure = Some(ApiError::from(error)),
                    }
                }
            }
        }
        *rows = again;
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(wait),
        }
    }

    /// Sleeps in short steps; `false` if interrupted.
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

impl From<DocumentError> for ApiError {
    fn from(error: DocumentError) -> ApiError {
        ApiError { status: error.status, code: error.code, detail: error.detail, deleted: 0 }
    }
}

/// The server asks to retry later.
struct RetryLater {
    time: Duration,
    reason: ApiError,
}

impl RetryLater {
    fn of(response: &ApiResponse) -> RetryLater {
        let time = response
            .retry_after
            .unwrap_or(Duration::from_secs(1))
            .clamp(Duration::from_millis(100), RETRY_DELAY_MAX);
        RetryLater { time, reason: response.to_error() }
    }
}
