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
    Door, Problem,
    body::{self, BodyReader, JSON_BYTES_MAX, MediaType},
    call::Call,
    json::{
        document::{DocumentShape, Item, Refused},
        write::{Counts, DOCUMENTS_MAX, DocumentsShape, Items, ResultView, ResultsView},
    },
    ndjson::{Fed, Gathered, Lines, write_line},
    path::Path,
    query::Query,
    reply,
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
    request_body(content((DocumentShape = "application/json"), (DocumentShape = "application/x-ndjson"))),
    responses((status = 200, description = "A result for each document", content(
        (ResultsView = "application/json"), (ResultView = "application/x-ndjson"))))
)]
pub(super) async fn post(
    State(door): State<Arc<Door>>,
    mut call: Call,
    Path(collection): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let stall = door.settings.body_timeout;
    if MediaType::of(&headers)? == MediaType::Json {
        let body = BodyReader::new(&headers, body, JSON_BYTES_MAX, stall)?.all().await?;
        return load_json(&Loading { door, call, collection }, &body).await;
    }
    let lines = Lines::new(BodyReader::new(&headers, body, NDJSON_BYTES_MAX, stall)?);
    door.service.schema(&collection)?;
    if !accepts_ndjson(&headers) {
        return load_lines(&Loading { door, call, collection }, lines).await;
    }
    let (results, answer) = mpsc::channel(1);
    let gone = call.hand_over();
    tokio::spawn(stream_lines(Loading { door, call, collection }, lines, results));
    let mut response = Response::new(Body::new(Fed::new(answer, gone)));
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
struct Loading {
    door: Arc<Door>,
    call: Call,
    collection: String,
}

/// A document on its way, or why it is none.
type Prepared = Result<Put, Box<Refused>>;

impl Loading {
    /// Writes a batch: a result for each, in order. With `wait`, a service without room is asked
    /// again until the batch's time is over.
    async fn write(&self, batch: Vec<Prepared>, wait: bool) -> Result<Vec<ResultView>, Problem> {
        let mut puts = Vec::with_capacity(batch.len());
        let refused: Vec<Option<Box<Refused>>> =
            batch.into_iter().map(|prepared| prepared.map(|put| puts.push(put)).err()).collect();
        let written = if puts.is_empty() { Vec::new() } else { self.put(puts, wait).await? };
        let mut written = written.into_iter();
        let result = |refused: Option<Box<Refused>>| match refused {
            Some(refused) => ResultView::refused(refused.id, refused.problem),
            None => written.next().expect("one result for one document"),
        };
        Ok(refused.into_iter().map(result).collect())
    }

    /// Puts documents: a result for each. With `wait`, those the service has no room for are put
    /// again until patience ends.
    async fn put(&self, puts: Vec<Put>, wait: bool) -> Result<Vec<ResultView>, Problem> {
        let cx = self.call.batch();
        let until = Instant::now() + self.door.settings.overload_patience;
        let mut results: Vec<Option<ResultView>> = puts.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..puts.len()).collect();
        loop {
            let patient = wait && Instant::now() < until;
            let again = |error: &Error| patient && error.kind == ErrorKind::Overloaded;
            let batch = open.iter().map(|&at| puts[at].clone()).collect();
            match self.door.service.put(&cx, &self.collection, batch).await {
                Err(error) if again(&error) => (),
                answers => {
                    let mut answers = answers?.into_iter();
                    open.retain(|&at| match answers.next().expect("one result for one document") {
                        Err(error) if again(&error) => true,
                        Err(error) => {
                            results[at] = Some(ResultView::refused(Some(puts[at].id.clone()), error.into()));
                            false
                        }
                        Ok(result) => {
                            results[at] = Some(ResultView::written(result));
                            false
                        }
                    });
                }
            }
            if open.is_empty() {
                return Ok(results.into_iter().flatten().collect());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes a batch of lines; what refuses the whole batch refuses each of its lines.
    async fn write_lines(&self, batch: Batch) -> Vec<ResultView> {
        let ids: Vec<Option<String>> = batch
            .documents
            .iter()
            .map(|prepared| match prepared {
                Ok(put) => Some(put.id.clone()),
                Err(refused) => refused.id.clone(),
            })
            .collect();
        let results = match self.write(batch.documents, true).await {
            Ok(results) => results,
            Err(problem) => ids.into_iter().map(|id| ResultView::refused(id, problem.clone())).collect(),
        };
        results.into_iter().zip(batch.numbers).map(|(result, number)| result.on_line(number)).collect()
    }
}

/// Lines that are written together.
#[derive(Default)]
struct Batch {
    documents: Vec<Prepared>,
    numbers: Vec<u64>,
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
            .and_then(|text| body::parse::<DocumentShape>(&text))
            .map_err(|problem| Box::new(Refused { id: None, problem }));
        batch.documents.push(document.and_then(|document| document.into_put(None, Expected::Any)));
        batch.numbers.push(line.number);
    }
    (batch, None)
}

/// Documents of a JSON body.
async fn load_json(loading: &Loading, body: &[u8]) -> Result<Response<Body>, Problem> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let items: Items = if first == Some(&b'[') {
        body::parse(body)?
    } else {
        let document: DocumentShape = body::parse(body)?;
        if !document.is_wrapper() {
            let put = document.into_put(None, Expected::Any);
            let result =
                loading.write(vec![put], false).await?.pop().expect("one result for one document").error()?;
            return Ok(answer(vec![result]));
        }
        body::parse::<DocumentsShape>(body)?.documents
    };
    let items = items.all().map_err(|given| {
        let detail = format!("{given} documents: a JSON body may have {DOCUMENTS_MAX}, send more as NDJSON");
        Problem::invalid("documents-count", detail)
    })?;
    let mut results: Vec<ResultView> = Vec::with_capacity(items.len());
    let mut items = items.into_iter().map(|Item(document)| document.into_put(None, Expected::Any)).peekable();
    while items.peek().is_some() {
        let batch: Vec<Prepared> = items.by_ref().take(BATCH_DOCUMENTS).collect();
        let standing = results.len();
        let written = loading.write(batch, standing > 0).await;
        results.extend(written.map_err(|problem| interrupted(problem, counts(&results)))?);
    }
    Ok(answer(results))
}

/// NDJSON, answered in JSON.
async fn load_lines(loading: &Loading, mut lines: Lines) -> Result<Response<Body>, Problem> {
    let mut counts = Counts::default();
    // In pieces: one text that grows would need twice its room.
    let mut pieces = VecDeque::from([Bytes::from_static(b"{\"results\":[")]);
    let mut bytes = 0;
    loop {
        let (batch, broken) = next_batch(&mut lines).await;
        if batch.documents.is_empty() && broken.is_none() {
            break;
        }
        let mut piece = Vec::with_capacity(batch.documents.len() * 96);
        for result in loading.write_lines(batch).await {
            if counts.standing() + counts.errors > 0 {
                piece.push(b',');
            }
            counts.count(&result);
            write_line(&mut piece, &result);
        }
        if let Some(problem) = broken {
            return Err(interrupted(problem, counts));
        }
        bytes += piece.len();
        if bytes > RESULTS_BYTES_MAX {
            let detail =
                "too many results for an answer in JSON: ask for them with Accept: application/x-ndjson";
            let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "results-size", detail);
            return Err(interrupted(problem, counts));
        }
        pieces.push_back(Bytes::from(piece));
    }
    let Counts { created, updated, unchanged, errors } = counts;
    let end = format!(
        "],\"created\":{created},\"updated\":{updated},\"unchanged\":{unchanged},\"errors\":{errors}}}"
    );
    pieces.push_back(Bytes::from(end));
    let mut response = Response::new(Body::new(Gathered::new(pieces)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// NDJSON, answered in NDJSON. Ends when the client hangs up.
async fn stream_lines(loading: Loading, mut lines: Lines, results: mpsc::Sender<Bytes>) {
    loop {
        let (batch, broken) = tokio::select! {
            next = next_batch(&mut lines) => next,
            () = results.closed() => return,
        };
        let ended = batch.documents.is_empty();
        let mut piece = Vec::with_capacity(batch.documents.len() * 96);
        for result in loading.write_lines(batch).await {
            write_line(&mut piece, &result);
        }
        let broke = broken.is_some();
        if let Some(problem) = broken {
            write_line(&mut piece, &ResultView::refused(None, problem));
        }
        if !piece.is_empty() && results.send(Bytes::from(piece)).await.is_err() {
            return;
        }
        if ended || broke {
            return;
        }
    }
}

fn counts(results: &[ResultView]) -> Counts {
    let mut counts = Counts::default();
    results.iter().for_each(|result| counts.count(result));
    counts
}

fn answer(results: Vec<ResultView>) -> Response<Body> {
    let counts = counts(&results);
    let bytes = 128 + results.len() * 96;
    reply::json_sized(StatusCode::OK, &ResultsView { results, counts }, bytes)
}

/// A request that broke off after some documents were written.
fn interrupted(problem: Problem, counts: Counts) -> Problem {
    match counts.standing() {
        0 => problem,
        standing => problem.and(&format!(" ({standing} documents before this were written and stay)")),
    }
}
