//! Writing documents: one, many, or a stream of them.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
};
use tokio::sync::mpsc;

use crate::http::{
    AppState, Problem,
    body::{self, BodyReader, JSON_BYTES_MAX, MediaType},
    json::{
        document::{ArrayDocument, DocumentRequest, RejectedDocument},
        write::{
            DOCUMENTS_MAX, DocumentArray, DocumentsRequest, WriteCounts, WriteResult, WriteResultsResponse,
        },
    },
    ndjson::{ChannelBody, ChunkedBody, Lines, write_line},
    path::Path,
    query::Query,
    request_context::RequestContext,
    response,
};
use service::{Error, ErrorKind, Expected, Put};

/// Bytes of an NDJSON body.
const NDJSON_BYTES_MAX: usize = 64 << 20;

/// Documents and bytes of JSON that are written together.
const BATCH_DOCUMENTS: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of results that are gathered for an answer in JSON; more are told as NDJSON.
const RESULTS_BYTES_MAX: usize = 64 << 20;

/// Pause before a stream's batch is offered again to a service that has no room.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Writes documents: one, an array, `{"documents": [...]}`, or NDJSON, one a line.
///
/// Every document has its own result, in the order given; one that is refused does not stop the
/// others. NDJSON is answered as NDJSON if `Accept` says so, each result as soon as its document
/// is durable: a client that asks for that has to read while it writes.
#[utoipa::path(
    post, path = "/collections/{c}/documents", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("Accept" = Option<String>, Header, description = "application/x-ndjson: results as they are made"),
    ),
    request_body(content((DocumentRequest = "application/json"), (DocumentRequest = "application/x-ndjson"))),
    responses((status = 200, description = "A result for each document", content(
        (WriteResultsResponse = "application/json"), (WriteResult = "application/x-ndjson"))))
)]
pub(super) async fn post(
    State(state): State<Arc<AppState>>,
    mut request: RequestContext,
    Path(collection): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let stall = state.settings.body_timeout;
    if MediaType::of(&headers)? == MediaType::Json {
        let body = BodyReader::new(&headers, body, JSON_BYTES_MAX, stall)?.all().await?;
        return ingest_json(&Ingest { state, request, collection }, &body).await;
    }
    let lines = Lines::new(BodyReader::new(&headers, body, NDJSON_BYTES_MAX, stall)?);
    state.service.schema(&collection)?;
    if !accepts_ndjson(&headers) {
        return ingest_lines(&Ingest { state, request, collection }, lines).await;
    }
    let (results, answer) = mpsc::channel(1);
    let cancel_guard = request.take_cancel_guard();
    tokio::spawn(stream_lines(Ingest { state, request, collection }, lines, results));
    let mut response = Response::new(Body::new(ChannelBody::new(answer, cancel_guard)));
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

/// Where documents of a request go.
struct Ingest {
    state: Arc<AppState>,
    request: RequestContext,
    collection: String,
}

/// A document on its way, or why it is none.
type ParsedDocument = Result<Put, Box<RejectedDocument>>;

impl Ingest {
    /// Writes a batch: a result for each, in order. With `wait`, a service without room is asked
    /// again until the batch's time is over.
    async fn write(&self, batch: Vec<ParsedDocument>, wait: bool) -> Result<Vec<WriteResult>, Problem> {
        let mut puts = Vec::with_capacity(batch.len());
        let rejected: Vec<Option<Box<RejectedDocument>>> =
            batch.into_iter().map(|prepared| prepared.map(|put| puts.push(put)).err()).collect();
        let written = if puts.is_empty() { Vec::new() } else { self.put(puts, wait).await? };
        let mut written = written.into_iter();
        let result = |rejected: Option<Box<RejectedDocument>>| match rejected {
            Some(rejected) => WriteResult::rejected(rejected.id, rejected.problem),
            None => written.next().expect("one result for one document"),
        };
        Ok(rejected.into_iter().map(result).collect())
    }

    /// Puts documents: a result for each. With `wait`, those the service has no room for are put
    /// again until patience ends.
    async fn put(&self, puts: Vec<Put>, wait: bool) -> Result<Vec<WriteResult>, Problem> {
        let cx = self.request.batch();
        let retry_until = Instant::now() + self.state.settings.overload_retry_timeout;
        let mut results: Vec<Option<WriteResult>> = puts.iter().map(|_| None).collect();
        let mut pending: Vec<usize> = (0..puts.len()).collect();
        loop {
            let may_retry = wait && Instant::now() < retry_until;
            let should_retry = |error: &Error| may_retry && error.kind == ErrorKind::Overloaded;
            let batch = pending.iter().map(|&at| puts[at].clone()).collect();
            match self.state.service.put(&cx, &self.collection, batch).await {
                Err(error) if should_retry(&error) => (),
                outcomes => {
                    let mut outcomes = outcomes?.into_iter();
                    pending.retain(|&at| match outcomes.next().expect("one result for one document") {
                        Err(error) if should_retry(&error) => true,
                        Err(error) => {
                            results[at] =
                                Some(WriteResult::rejected(Some(puts[at].id.clone()), error.into()));
                            false
                        }
                        Ok(result) => {
                            results[at] = Some(WriteResult::success(result));
                            false
                        }
                    });
                }
            }
            if pending.is_empty() {
                return Ok(results.into_iter().flatten().collect());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes a batch of lines; what refuses the whole batch refuses each of its lines.
    async fn write_lines(&self, batch: Batch) -> Vec<WriteResult> {
        let ids: Vec<Option<String>> = batch
            .documents
            .iter()
            .map(|prepared| match prepared {
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

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    documents: Vec<ParsedDocument>,
    line_numbers: Vec<u64>,
}

/// The next batch, which is empty at the end, and why the body cannot be read on.
async fn next_batch(lines: &mut Lines) -> (Batch, Option<Problem>) {
    let (mut batch, mut bytes) = (Batch::default(), 0);
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

/// Documents of a JSON body.
async fn ingest_json(ingest: &Ingest, body: &[u8]) -> Result<Response<Body>, Problem> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let items: DocumentArray = if first == Some(&b'[') {
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
            return Ok(results_response(vec![result]));
        }
        body::parse::<DocumentsRequest>(body)?.documents
    };
    let items = items.into_vec().map_err(|given| {
        let detail = format!("{given} documents: a JSON body may have {DOCUMENTS_MAX}, send more as NDJSON");
        Problem::invalid("too-many-documents", detail)
    })?;
    let mut results: Vec<WriteResult> = Vec::with_capacity(items.len());
    let mut items =
        items.into_iter().map(|ArrayDocument(document)| document.into_put(None, Expected::Any)).peekable();
    while items.peek().is_some() {
        let batch: Vec<ParsedDocument> = items.by_ref().take(BATCH_DOCUMENTS).collect();
        let written_count = results.len();
        let written = ingest.write(batch, written_count > 0).await;
        results.extend(written.map_err(|problem| interrupted(problem, counts(&results)))?);
    }
    Ok(results_response(results))
}

/// NDJSON, answered in JSON.
async fn ingest_lines(ingest: &Ingest, mut lines: Lines) -> Result<Response<Body>, Problem> {
    let mut counts = WriteCounts::default();
    // In pieces: one text that grows would need twice its room.
    let mut chunks = VecDeque::from([Bytes::from_static(b"{\"results\":[")]);
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
                "too many results for an answer in JSON: ask for them with Accept: application/x-ndjson";
            let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "results-size", detail);
            return Err(interrupted(problem, counts));
        }
        chunks.push_back(Bytes::from(chunk));
    }
    let WriteCounts { created, updated, unchanged, errors } = counts;
    let end = format!(
        "],\"created\":{created},\"updated\":{updated},\"unchanged\":{unchanged},\"errors\":{errors}}}"
    );
    chunks.push_back(Bytes::from(end));
    let mut response = Response::new(Body::new(ChunkedBody::new(chunks)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// NDJSON, answered in NDJSON. Ends when the client hangs up.
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
        let broke = failure.is_some();
        if let Some(problem) = failure {
            write_line(&mut chunk, &WriteResult::rejected(None, problem));
        }
        if !chunk.is_empty() && results.send(Bytes::from(chunk)).await.is_err() {
            return;
        }
        if ended || broke {
            return;
        }
    }
}

fn counts(results: &[WriteResult]) -> WriteCounts {
    let mut counts = WriteCounts::default();
    results.iter().for_each(|result| counts.add(result));
    counts
}

fn results_response(results: Vec<WriteResult>) -> Response<Body> {
    let counts = counts(&results);
    let bytes = 128 + results.len() * 96;
    response::json_sized(StatusCode::OK, &WriteResultsResponse { results, counts }, bytes)
}

/// A request that broke off after some documents were written.
fn interrupted(problem: Problem, counts: WriteCounts) -> Problem {
    match counts.written() {
        0 => problem,
        written_count => {
            problem.and(&format!(" ({written_count} documents before this were written and stay)"))
        }
    }
}
