//! JSON responses of many elements, serialized one by one as the client reads them.
//!
//! JSON can be six times as long as what it represents (control characters). A response therefore keeps its elements as
//! they are, and the JSON of one of them at a time, of large ones in pieces.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Response, StatusCode, header},
};
use hyper::body::Frame;
use serde::Serialize;
use tokio::time::Sleep;

use super::{
    Problem,
    charge::{self, Charged},
    request_context::RequestContext,
};
use crate::access::Reservation;

/// Bytes of a chunk of JSON, and of the write buffer of a connection.
const CHUNK_BYTES: usize = 64 << 10;

/// Memory of elements up to which a response is serialized at once. It then has a `Content-Length`.
const WHOLE_BYTES_MAX: usize = 64 << 10;

/// Most JSON of an element that is kept. A longer one is serialized again for each piece: rare, and slower instead of
/// larger.
const PIECE_BYTES: usize = 8 << 20;

/// Most bytes of JSON per byte of memory of an element: a control character becomes `\u0000`.
const JSON_BYTES_PER_BYTE: usize = 6;

/// A JSON value in parts.
#[derive(Default)]
pub(super) struct JsonStream {
    parts: VecDeque<Part>,
    /// Memory of all parts, and of the largest element, in bytes.
    bytes: usize,
    largest: usize,
}

enum Part {
    Json(Vec<u8>),
    Elements(Box<dyn Elements>),
}

impl fmt::Debug for JsonStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JsonStream { parts, bytes, largest } = self;
        let parts = parts.len();
        write!(formatter, "JsonStream {{ parts: {parts}, bytes: {bytes}, largest: {largest} }}")
    }
}

/// The elements of an array.
trait Elements: Send {
    /// Serializes the next element or a piece of it. Returns the memory that is freed, in bytes; `None` at the end.
    fn write_next(&mut self, to: &mut Chunks) -> Option<usize>;
}

struct ElementsOf<T, S, W> {
    elements: std::vec::IntoIter<T>,
    /// An element of which that many bytes are written.
    begun: Option<(T, usize)>,
    is_first: bool,
    size: S,
    write: W,
}

impl<T, S, W> Elements for ElementsOf<T, S, W>
where
    T: Send,
    S: Fn(&T) -> usize + Send,
    W: Fn(&T, &mut Chunks) -> Written + Send,
{
    fn write_next(&mut self, to: &mut Chunks) -> Option<usize> {
        let (element, written) = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let element = self.elements.next()?;
                if !std::mem::take(&mut self.is_first) {
                    to.push(b",");
                }
                (element, 0)
            }
        };
        to.range = Range { skip: written, take: PIECE_BYTES };
        let outcome = (self.write)(&element, to);
        to.range = Range::ALL;
        match outcome {
            Written::All => Some((self.size)(&element)),
            Written::Piece => {
                self.begun = Some((element, written + PIECE_BYTES));
                Some(0)
            }
        }
    }
}

/// Whether a value was serialized to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    All,
    Piece,
}

impl JsonStream {
    /// Appends JSON.
    pub(super) fn json(&mut self, json: Vec<u8>) {
        self.bytes += json.len();
        self.parts.push_back(Part::Json(json));
    }

    /// Appends `value`.
    pub(super) fn value(&mut self, value: &impl Serialize) {
        self.json(serde_json::to_vec(value).expect("responses have string keys"));
    }

    /// Appends elements, separated by commas. `size` returns the memory of an element in bytes; `write` serializes it.
    pub(super) fn elements<T: Send + 'static>(
        &mut self,
        elements: Vec<T>,
        size: impl Fn(&T) -> usize + Send + 'static,
        write: impl Fn(&T, &mut Chunks) -> Written + Send + 'static,
    ) {
        for bytes in elements.iter().map(&size) {
            self.bytes += bytes;
            self.largest = self.largest.max(bytes);
        }
        let elements =
            ElementsOf { elements: elements.into_iter(), begun: None, is_first: true, size, write };
        self.parts.push_back(Part::Elements(Box::new(elements)));
    }

    /// Appends `object`, whose member `array` is an empty array, with the elements that `fill` appends in it.
    pub(super) fn object(
        &mut self,
        object: &impl Serialize,
        array: &str,
        fill: impl FnOnce(&mut JsonStream),
    ) {
        let mut head = serde_json::to_vec(object).expect("responses have string keys");
        // Inside of strings, quotes are escaped.
        let member = format!("\"{array}\":[]");
        let at = head.windows(member.len()).position(|window| window == member.as_bytes());
        let at = at.expect("the object has this member as an empty array") + member.len() - 1;
        let tail = head.split_off(at);
        self.json(head);
        fill(self);
        self.json(tail);
    }

    /// The response, counted against the budget of the request's caller if it is large (`charge::charge` counts others).
    /// Fails if it does not fit.
    pub(super) fn into_response(self, request: &RequestContext) -> Result<Response<Body>, Problem> {
        let mut response = if self.bytes <= WHOLE_BYTES_MAX {
            Response::new(Body::from(self.into_vec()))
        } else {
            // The element that is being serialized, and the chunks that wait to be written.
            let window = (JSON_BYTES_PER_BYTE * self.largest).min(PIECE_BYTES) + 2 * CHUNK_BYTES;
            let mut reservation = request
                .response_budget
                .reserve(request.caller_id, self.bytes + window)
                .ok_or_else(charge::budget_exhausted)?;
            let window = Arc::new(reservation.split(window));
            let body = JsonBody {
                parts: self.parts,
                chunks: Chunks::default(),
                elements: reservation,
                window,
                deadline: Box::pin(tokio::time::sleep(request.response_timeout)),
                timeout: request.response_timeout,
            };
            let mut response = Response::new(Body::new(body));
            response.extensions_mut().insert(Charged);
            response
        };
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    fn into_vec(self) -> Vec<u8> {
        let mut chunks = Chunks::default();
        chunks.queue.push_back(Vec::with_capacity((self.bytes + self.bytes / 4 + 64).min(CHUNK_BYTES)));
        for part in self.parts {
            match part {
                Part::Json(json) => chunks.push(&json),
                Part::Elements(mut elements) => while elements.write_next(&mut chunks).is_some() {},
            }
        }
        match chunks.queue.len() {
            1 => chunks.queue.remove(0).expect("there is one"),
            _ => chunks.queue.make_contiguous().concat(),
        }
    }
}

/// JSON in chunks of equal size: one growing buffer would need twice the memory.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    queue: VecDeque<Vec<u8>>,
    /// Which bytes of the value that is being serialized are kept.
    range: Range,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    skip: usize,
    take: usize,
}

impl Range {
    const ALL: Range = Range { skip: 0, take: usize::MAX };
}

impl Default for Range {
    fn default() -> Range {
        Range::ALL
    }
}

impl Chunks {
    /// Appends `value`, or a piece of it.
    pub(super) fn serialize(&mut self, value: &impl Serialize) -> Written {
        match serde_json::to_writer(&mut *self, value) {
            Ok(()) => Written::All,
            Err(error) if error.is_io() => Written::Piece,
            Err(error) => unreachable!("responses have string keys: {error}"),
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let last = match self.queue.back_mut() {
                Some(last) if last.len() < CHUNK_BYTES => last,
                _ => {
                    self.queue.push_back(Vec::with_capacity(CHUNK_BYTES));
                    self.queue.back_mut().expect("it was added")
                }
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - last.len()));
            last.extend_from_slice(taken);
            bytes = rest;
        }
    }

    /// Whether the first chunk is complete.
    fn has_complete(&self) -> bool {
        self.queue.front().is_some_and(|chunk| chunk.len() == CHUNK_BYTES)
    }
}

impl io::Write for Chunks {
    /// Fails at the end of the range.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (skipped, rest) = bytes.split_at(bytes.len().min(self.range.skip));
        self.range.skip -= skipped.len();
        let (taken, excess) = rest.split_at(rest.len().min(self.range.take));
        self.range.take -= taken.len();
        self.push(taken);
        if excess.is_empty() { Ok(bytes.len()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a response is cut off.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read the response within {} ms (response_timeout_ms)", timeout.as_millis())]
struct ReadTooSlowly {
    timeout: Duration,
}

struct JsonBody {
    parts: VecDeque<Part>,
    chunks: Chunks,
    /// For the memory of the parts that are left.
    elements: Reservation,
    /// For JSON. Each chunk keeps it until it is written.
    window: Arc<Reservation>,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl JsonBody {
    /// The next chunk.
    fn next(&mut self) -> Option<Vec<u8>> {
        while !self.chunks.has_complete() {
            match self.parts.front_mut() {
                None => break,
                Some(Part::Json(json)) => {
                    self.chunks.push(json);
                    self.elements.shrink(json.len());
                    self.parts.pop_front();
                }
                Some(Part::Elements(elements)) => match elements.write_next(&mut self.chunks) {
                    Some(freed) => self.elements.shrink(freed),
                    None => drop(self.parts.pop_front()),
                },
            }
        }
        self.chunks.queue.pop_front()
    }
}

impl HttpBody for JsonBody {
    type Data = Bytes;
    type Error = ReadTooSlowly;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadTooSlowly>>> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(ReadTooSlowly { timeout: self.timeout })));
        }
        let chunk = self.next();
        let hold = |chunk| Ok(Frame::data(charge::charged_bytes(chunk, Arc::clone(&self.window))));
        Poll::Ready(chunk.map(hold))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::access::{CallerId, ResponseBudget};

    #[derive(Serialize)]
    struct Page {
        query: &'static str,
        results: Vec<String>,
        next: Option<u64>,
    }

    /// A page of these texts.
    fn page(texts: &[String]) -> JsonStream {
        let mut stream = JsonStream::default();
        let page = Page { query: "\"results\":[] and \u{1}", results: Vec::new(), next: None };
        stream.object(&page, "results", |stream| {
            stream.elements(texts.to_vec(), String::len, |text, to| to.serialize(text));
        });
        stream
    }

    fn expected(texts: &[String]) -> Value {
        json!({"query": "\"results\":[] and \u{1}", "results": texts, "next": null})
    }

    #[tokio::test]
    async fn chunks_add_up_to_the_whole() {
        for (count, length) in [
            (0, 0),
            (1, 5),
            (3, 20_000),
            (1000, 100),
            (2, 500_000),
            (4, CHUNK_BYTES / 6),
            (2, PIECE_BYTES / 4),
        ] {
            let texts: Vec<String> = (0..count).map(|_| "\u{1}".repeat(length)).collect();
            let budget = Arc::new(ResponseBudget::new(64 << 20));
            let request = RequestContext::for_tests(&budget, Duration::from_secs(60));
            let response = page(&texts).into_response(&request).unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, expected(&texts), "{count} texts of {length}");
            assert_eq!(budget.reserved(), 0);
        }
    }

    #[tokio::test]
    async fn a_response_counts_until_its_last_chunk_is_written() {
        let budget = Arc::new(ResponseBudget::new(64 << 20));
        let request = RequestContext::for_tests(&budget, Duration::from_secs(60));
        let texts = vec!["\u{1}".repeat(1 << 20); 4];
        let mut body = page(&texts).into_response(&request).unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(budget.reserved() > (3 << 20) + (6 << 20), "{}", budget.reserved());
        let (mut last, mut read) = (first.clone(), first.len());
        while let Some(frame) = body.frame().await {
            last = frame.unwrap().into_data().unwrap();
            read += last.len();
        }
        assert!(read > 24 << 20);
        drop((body, first));
        assert!(budget.reserved() > 6 << 20, "{}", budget.reserved());
        drop(last);
        assert_eq!(budget.reserved(), 0);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_rejected_and_small_responses_are_not() {
        let budget = Arc::new(ResponseBudget::new(1 << 20));
        let request = RequestContext::for_tests(&budget, Duration::from_secs(60));
        let problem = page(&["a".repeat(1 << 20)]).into_response(&request).unwrap_err();
        assert_eq!(problem.status(), 503);
        let other = CallerId::Key([7; 32]);
        let _all = budget.reserve(other, 1 << 20).unwrap();
        assert!(page(&["a".to_owned()]).into_response(&request).is_ok());
        assert!(page(&["a".repeat(70 << 10)]).into_response(&request).is_err());
        // What is serialized at once is counted afterwards.
        let charged = |bytes: usize| {
            let whole = page(&["a".repeat(bytes)]).into_response(&request).unwrap();
            charge::charge(&budget, request.caller_id, whole).status()
        };
        assert_eq!((charged(10 << 10), charged(20 << 10)), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
    }

    #[tokio::test]
    async fn a_response_that_takes_too_long_is_cut_off() {
        let budget = Arc::new(ResponseBudget::new(64 << 20));
        let request = RequestContext::for_tests(&budget, Duration::ZERO);
        let mut body = page(&["a".repeat(1 << 20)]).into_response(&request).unwrap().into_body();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("response_timeout_ms"), "{error}");
    }
}
