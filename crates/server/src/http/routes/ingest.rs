//! Writing documents: one, many, or a stream.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Response, header},
};
use futures_util::stream;
use tokio::sync::mpsc;

use crate::access::Reservation;
use crate::http::{
    AppState, Problem,
    body::{self, BodyReader, JSON_BYTES_MAX, MediaType},
    charge::{self, Charged},
    error_code::ErrorCode,
    json::{
        document::{ArrayDocument, DocumentRequest, RejectedDocument},
        write::{DocumentArray, DocumentsRequest, WriteCounts, WriteResult, WriteResultsResponse},
    },
    json_stream::JsonStream,
    ndjson::{Lines, channel_body, write_line},
    params::{NoParams, Params},
    path::{CollectionPath, Path},
    request_context::RequestContext,
};
use service::{Error, ErrorKind, Expected, Put, PutResult, limits::DOCUMENTS_MAX};

/// Bytes of an NDJSON body.
const NDJSON_BYTES_MAX: usize = 64 << 20;

/// Documents and bytes of JSON per batch.
const BATCH_DOCUMENTS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of results in a JSON response. More results require an NDJSON response.
const RESULTS_BYTES_MAX: usize = 64 << 20;

/// Pause before a batch is retried because the service is overloaded.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Memory of the result for a document, about twice that of most.
const RESULT_BYTES: usize = 512;

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Writes documents: one, an array, `{"documents": [...]}`, or NDJSON with one document per line.
///
/// Every document has its own result, in the order given; a rejected document does not affect the others. With
/// `Accept: application/x-ndjson`, NDJSON is answered by NDJSON, each result as soon as its document is durable: such a
/// client has to read the response while it sends the request.
#[utoipa::path(
    post, path = "/collections/{c}/documents", tag = "documents",
    params(
        CollectionPath,
        ("Accept" = Option<String>, Header, description = "application/x-ndjson: stream the results"),
    ),
    request_body(content((DocumentRequest = "application/json"), (DocumentRequest = "application/x-ndjson"))),
    responses((status = 200, description = "A result for each document", content(
        (WriteResultsResponse = "application/json"), (WriteResult = "application/x-ndjson"))))
)]
pub(super) async fn post(
    State(state): State<Arc<AppState>>,
    mut request: RequestContext,
    Path(CollectionPath { collection }): Path<CollectionPath>,
    Params(NoParams {}): Params<NoParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let stall = state.settings.body_timeout;
    if MediaType::of(&headers)? == MediaType::Json {
        let body = BodyReader::new(&headers, body, JSON_BYTES_MAX, stall)?.read_to_end().await?;
        return ingest_json(&Ingest { state, request, collection }, &body).await;
    }
    let lines = Lines::new(BodyReader::new(&headers, body, NDJSON_BYTES_MAX, stall)?);
    state.service.schema(&collection)?;
    if !accepts_ndjson(&headers) {
        return ingest_lines(&Ingest { state, request, collection }, lines).await;
    }
    let (results, chunks) = mpsc::channel(1);
    let cancel_guard = request.take_cancel_guard();
    tokio::spawn(stream_lines(Ingest { state, request, collection }, lines, results));
    let mut response = Response::new(channel_body(chunks, cancel_guard));
    response.headers_mut().insert(header::CONTENT_TYPE, NDJSON);
    Ok(response)
}

fn accepts_ndjson(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept.to_str().is_ok_and(|accept| {
            accept
                .split(',')
                .any(|kind| kind.split(';').next().unwrap_or_default().trim() == "application/x-ndjson")
        })
    })
}

/// The target of the documents of a request.
struct Ingest {
    state: Arc<AppState>,
    request: RequestContext,
    collection: String,
}

/// A document to write, or why it is rejected.
type ParsedDocument = Result<Put, Box<RejectedDocument>>;

impl Ingest {
    /// Reserves memory for results of this many bytes.
    fn reserve(&self, bytes: usize) -> Option<Reservation> {
        self.request.response_budget.reserve(self.request.caller_id, bytes)
    }

    /// [`Ingest::reserve`], which waits up to `overload_retry_timeout` until other results are read.
    async fn wait_for_reservation(&self, bytes: usize) -> Option<Reservation> {
        let retry_until = Instant::now() + self.state.settings.overload_retry_timeout;
        loop {
            let reservation = self.reserve(bytes);
            if reservation.is_some() || Instant::now() >= retry_until {
                return reservation;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes a batch and returns a result for each document, in order. With `retry`, documents are retried while the
    /// service is overloaded, up to `overload_retry_timeout`.
    async fn write(&self, batch: Vec<ParsedDocument>, retry: bool) -> Result<Vec<WriteResult>, Problem> {
        let mut puts = Vec::with_capacity(batch.len());
        let rejected: Vec<Option<Box<RejectedDocument>>> =
            batch.into_iter().map(|document| document.map(|put| puts.push(put)).err()).collect();
        let written = if puts.is_empty() { Vec::new() } else { self.put(puts, retry).await? };
        let mut written = written.into_iter();
        let result = |rejected: Option<Box<RejectedDocument>>| match rejected {
            Some(rejected) => WriteResult::rejected(rejected.id, rejected.problem),
            None => written.next().expect("one result for one document"),
        };
        Ok(rejected.into_iter().map(result).collect())
    }

    /// Puts documents and returns a result for each; `retry` as in [`Ingest::write`].
    async fn put(&self, puts: Vec<Put>, retry: bool) -> Result<Vec<WriteResult>, Problem> {
        let cx = self.request.batch();
        let retry_until = retry.then(|| Instant::now() + self.state.settings.overload_retry_timeout);
        let put = |puts| self.state.service.put(&cx, &self.collection, puts);
        Ok(put_with_retries(puts, retry_until, put).await?)
    }

    /// Writes a batch of lines. A problem with the whole batch is reported for each of its lines.
    async fn write_lines(&self, batch: LineBatch) -> Vec<WriteResult> {
        let ids: Vec<Option<String>> = batch
            .documents
            .iter()
            .map(|document| match document {
                Ok(put) => Some(put.id.clone()),
                Err(rejected) => rejected.id.clone(),
            })
            .collect();
        let results = match self.write(batch.documents, true).await {
            Ok(results) => results,
            Err(problem) => ids.into_iter().map(|id| WriteResult::rejected(id, problem.clone())).collect(),
        };
        results.into_iter().zip(batch.line_numbers).map(|(result, number)| result.on_line(number)).collect()
    }
}

/// Puts documents with `put`, repeating it until `retry_until` for those that fail because the service is overloaded.
/// Returns a result for each document. Fails only if no document has a result.
async fn put_with_retries<F: Future<Output = Result<Vec<Result<PutResult, Error>>, Error>>>(
    puts: Vec<Put>,
    retry_until: Option<Instant>,
    put: impl Fn(Vec<Put>) -> F,
) -> Result<Vec<WriteResult>, Error> {
    let mut results: Vec<Option<WriteResult>> = puts.iter().map(|_| None).collect();
    let mut pending: Vec<usize> = (0..puts.len()).collect();
    loop {
        let may_retry = retry_until.is_some_and(|until| Instant::now() < until);
        let should_retry = |error: &Error| may_retry && error.kind == ErrorKind::Overloaded;
        let outcomes = match put(pending.iter().map(|&at| puts[at].clone()).collect()).await {
            Ok(outcomes) => outcomes,
            Err(error) if should_retry(&error) || pending.len() < puts.len() => {
                pending.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) => return Err(error),
        };
        let mut still_pending = Vec::new();
        for (at, outcome) in pending.into_iter().zip(outcomes) {
            match outcome {
                Err(error) if should_retry(&error) => still_pending.push(at),
                Err(error) => {
                    results[at] = Some(WriteResult::rejected(Some(puts[at].id.clone()), error.into()));
                }
                Ok(result) => results[at] = Some(WriteResult::success(result)),
            }
        }
        pending = still_pending;
        if pending.is_empty() {
            return Ok(results.into_iter().flatten().collect());
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Lines that are written together.
#[derive(Default)]
struct LineBatch {
    documents: Vec<ParsedDocument>,
    line_numbers: Vec<u64>,
}

/// The next batch, empty at the end of the body, and the problem if the body cannot be read further.
async fn next_batch(lines: &mut Lines) -> (LineBatch, Option<Problem>) {
    let (mut batch, mut bytes) = (LineBatch::default(), 0);
    while batch.documents.len() < BATCH_DOCUMENTS && bytes < BATCH_BYTES {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(problem) => return (batch, Some(problem)),
        };
        bytes += line.text.as_ref().map_or(0, Vec::len);
        let document = line
            .text
            .and_then(|text| body::parse::<DocumentRequest>(&text))
            .map_err(|problem| Box::new(RejectedDocument { id: None, problem }));
        batch.documents.push(document.and_then(|document| document.into_put(None, Expected::Any)));
        batch.line_numbers.push(line.number);
    }
    (batch, None)
}

/// Writes the documents of a JSON body.
async fn ingest_json(ingest: &Ingest, body: &[u8]) -> Result<Response<Body>, Problem> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let documents: DocumentArray = if first == Some(&b'[') {
        body::parse(body)?
    } else {
        let document: DocumentRequest = body::parse(body)?;
        if !document.is_wrapper() {
            let put = document.into_put(None, Expected::Any);
            let result = ingest
                .write(vec![put], false)
                .await?
                .pop()
                .expect("one result for one document")
                .into_result()?;
            return results_response(ingest, vec![result]);
        }
        body::parse::<DocumentsRequest>(body)?.documents
    };
    let documents = documents.into_vec().map_err(|count| {
        let detail =
            format!("{count} documents are more than {DOCUMENTS_MAX} in a JSON body: send them as NDJSON");
        Problem::new(ErrorCode::TooManyDocuments, detail)
    })?;
    // Before anything is written, so that the results can be sent afterwards.
    let reservation = ingest.reserve(documents.len() * RESULT_BYTES).ok_or_else(charge::budget_exhausted)?;
    let mut results: Vec<WriteResult> = Vec::with_capacity(documents.len());
    let mut documents = documents
        .into_iter()
        .map(|ArrayDocument(document)| document.into_put(None, Expected::Any))
        .peekable();
    while documents.peek().is_some() {
        let batch: Vec<ParsedDocument> = documents.by_ref().take(BATCH_DOCUMENTS).collect();
        // An overloaded service rejects the request as a whole unless part of it is written already.
        let written = ingest.write(batch, !results.is_empty()).await;
        results.extend(written.map_err(|problem| interrupted(problem, counts(&results)))?);
    }
    drop(reservation);
    results_response(ingest, results)
}

/// Writes NDJSON and responds with JSON.
async fn ingest_lines(ingest: &Ingest, mut lines: Lines) -> Result<Response<Body>, Problem> {
    let mut counts = WriteCounts::default();
    // Kept in chunks: one buffer that grows would need twice the memory.
    let mut chunks = vec![Bytes::from_static(b"{\"results\":[")];
    let mut bytes = 0;
    loop {
        let (batch, failure) = next_batch(&mut lines).await;
        if batch.documents.is_empty() && failure.is_none() {
            break;
        }
        let mut chunk = Vec::with_capacity(batch.documents.len() * 96);
        for result in ingest.write_lines(batch).await {
            if counts.written() + counts.errors > 0 {
                chunk.push(b',');
            }
            counts.add(&result);
            write_line(&mut chunk, &result);
        }
        if let Some(problem) = failure {
            return Err(interrupted(problem, counts));
        }
        bytes += chunk.len();
        if bytes > RESULTS_BYTES_MAX {
            let detail =
                "too many results for a JSON response: request NDJSON with Accept: application/x-ndjson";
            let problem = Problem::new(ErrorCode::ResultsSize, detail);
            return Err(interrupted(problem, counts));
        }
        let reservation = ingest.reserve(chunk.len());
        let reservation = reservation.ok_or_else(|| interrupted(charge::budget_exhausted(), counts))?;
        chunks.push(charge::charged_bytes(chunk, Arc::new(reservation)));
    }
    let WriteCounts { created, updated, unchanged, errors } = counts;
    let end = format!(
        "],\"created\":{created},\"updated\":{updated},\"unchanged\":{unchanged},\"errors\":{errors}}}"
    );
    chunks.push(Bytes::from(end));
    let length: usize = chunks.iter().map(Bytes::len).sum();
    let body = Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, Infallible>)));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response.extensions_mut().insert(Charged);
    Ok(response)
}

/// Writes NDJSON and streams the results as NDJSON. Ends when the client hangs up.
async fn stream_lines(ingest: Ingest, mut lines: Lines, results: mpsc::Sender<Bytes>) {
    loop {
        let (batch, failure) = tokio::select! {
            next = next_batch(&mut lines) => next,
            () = results.closed() => return,
        };
        let ended = batch.documents.is_empty();
        let mut chunk = Vec::with_capacity(batch.documents.len() * 96);
        for result in ingest.write_lines(batch).await {
            write_line(&mut chunk, &result);
        }
        let failed = failure.is_some();
        if let Some(problem) = failure {
            write_line(&mut chunk, &WriteResult::rejected(None, problem));
        }
        if !chunk.is_empty() {
            let Some(reservation) = ingest.wait_for_reservation(chunk.len()).await else {
                let mut problem = Vec::new();
                write_line(&mut problem, &WriteResult::rejected(None, charge::budget_exhausted()));
                // The client may have gone.
                let _ = results.send(Bytes::from(problem)).await;
                return;
            };
            let chunk = charge::charged_bytes(chunk, Arc::new(reservation));
            if results.send(chunk).await.is_err() {
                return;
            }
        }
        if ended || failed {
            return;
        }
    }
}

fn counts(results: &[WriteResult]) -> WriteCounts {
    let mut counts = WriteCounts::default();
    results.iter().for_each(|result| counts.add(result));
    counts
}

fn results_response(ingest: &Ingest, results: Vec<WriteResult>) -> Result<Response<Body>, Problem> {
    let envelope = WriteResultsResponse { counts: counts(&results), results: Vec::new() };
    let mut body = JsonStream::default();
    body.object(&envelope, "results", |body| {
        body.elements(results, |_| RESULT_BYTES, |result, to| to.serialize(result));
    });
    body.into_response(&ingest.request)
}

/// Adds to the problem of an interrupted request how many documents were written before.
fn interrupted(problem: Problem, counts: WriteCounts) -> Problem {
    match counts.written() {
        0 => problem,
        written_count => {
            problem.append_detail(&format!(" ({written_count} documents were written before and are kept)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque, future::ready};

    use service::Outcome;

    use super::*;

    fn error(kind: ErrorKind, code: &'static str) -> Error {
        Error::new(kind, code, "message")
    }

    fn busy() -> Error {
        error(ErrorKind::Overloaded, "overloaded")
    }

    fn late() -> Error {
        error(ErrorKind::Unavailable, "deadline")
    }

    fn written(id: &str) -> Result<PutResult, Error> {
        Ok(PutResult { id: id.to_owned(), outcome: Outcome::Created, seq: 1, truncated: false })
    }

    /// The status of each document, if `put` returns these outcomes one after the other.
    async fn put(
        ids: &[&str],
        retry: bool,
        outcomes: impl IntoIterator<Item = Result<Vec<Result<PutResult, Error>>, Error>>,
    ) -> Result<Vec<String>, &'static str> {
        let put =
            |id: &&str| Put { id: (*id).to_owned(), fields: Vec::new(), ttl: None, expected: Expected::Any };
        let outcomes = RefCell::new(outcomes.into_iter().collect::<VecDeque<_>>());
        let retry_until = retry.then(|| Instant::now() + Duration::from_secs(60));
        let next = |puts: Vec<Put>| {
            let outcome = outcomes.borrow_mut().pop_front().expect("another outcome");
            assert!(outcome.as_ref().is_ok_and(|results| results.len() == puts.len()) || outcome.is_err());
            ready(outcome)
        };
        let results = put_with_retries(ids.iter().map(put).collect(), retry_until, next).await;
        assert!(outcomes.borrow().is_empty(), "every outcome was used");
        let describe = |result: &WriteResult| {
            let json = serde_json::to_value(result).unwrap();
            let status = json["error"]["code"].as_str().or(json["status"].as_str()).unwrap().to_owned();
            format!("{} {status}", json["id"].as_str().unwrap())
        };
        results.map(|results| results.iter().map(describe).collect()).map_err(|error| error.code)
    }

    #[tokio::test]
    async fn a_failed_retry_does_not_hide_what_was_written_before() {
        let first = Ok(vec![written("a"), Err(busy()), written("c")]);
        let statuses = put(&["a", "b", "c"], true, [first, Err(late())]).await.unwrap();
        assert_eq!(statuses, ["a created", "b deadline", "c created"]);
    }

    #[tokio::test]
    async fn documents_are_retried_while_the_service_is_overloaded() {
        let outcomes = [Err(busy()), Ok(vec![Err(busy()), written("b")]), Ok(vec![written("a")])];
        assert_eq!(put(&["a", "b"], true, outcomes).await.unwrap(), ["a created", "b created"]);
        let without_retry = [Ok(vec![Err(busy()), written("b")])];
        assert_eq!(put(&["a", "b"], false, without_retry).await.unwrap(), ["a overloaded", "b created"]);
    }

    #[tokio::test]
    async fn a_batch_without_any_result_fails_as_a_whole() {
        assert_eq!(put(&["a"], true, [Err(late())]).await, Err("deadline"));
        assert_eq!(put(&["a"], false, [Err(busy())]).await, Err("overloaded"));
    }
}
