//! Metrics and logs of every request, and the security headers of every response.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use metrics::{Counter, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Responses by method, route and status.
const REQUESTS: &str = "nearfield_http_requests_total";
/// Seconds from the head of a request to the head of its response.
const SECONDS: &str = "nearfield_http_request_seconds";
/// Requests in progress.
const IN_FLIGHT: &str = "nearfield_http_requests_in_flight";
/// Open connections.
pub(crate) const CONNECTIONS: &str = "nearfield_http_connections";
/// Connections that were closed for others.
pub(crate) const EVICTED_CONNECTIONS: &str = "nearfield_http_connections_evicted_total";
/// Documents in the keyspace.
pub(super) const DOCUMENTS: &str = "nearfield_documents";
/// Sequence number of the last change.
pub(super) const LAST_SEQ: &str = "nearfield_last_seq";
/// Changes that are acknowledged but not durable yet.
pub(super) const NOT_DURABLE: &str = "nearfield_changes_not_durable";
/// Whether `/readyz` answers 200.
pub(super) const READY: &str = "nearfield_ready";
/// Bytes of the store file.
pub(super) const FILE_BYTES: &str = "nearfield_store_file_bytes";
/// Bytes reserved for responses that clients have not read yet.
pub(super) const RESPONSE_MEMORY_BYTES: &str = "nearfield_response_memory_bytes";
/// Bytes of memory of all collections.
pub(super) const MEMORY_BYTES: &str = "nearfield_index_memory_bytes";
/// Commits since the start of the server.
pub(super) const COMMITS: &str = "nearfield_commits_total";

/// Upper bounds of the buckets of the duration histogram, in seconds.
pub(crate) const SECONDS_BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 1.0, 4.0, 16.0];

/// Describes the metrics to the installed recorder. Call it once, after installing the recorder.
pub fn describe_metrics() {
    describe_counter!(REQUESTS, "Responses by method, route and status");
    describe_histogram!(
        SECONDS,
        metrics::Unit::Seconds,
        "Time from the head of a request to the head of its response, by route"
    );
    describe_gauge!(IN_FLIGHT, "Requests in progress");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(EVICTED_CONNECTIONS, "Connections without an API key that were closed for others");
    describe_gauge!(DOCUMENTS, "Documents in the keyspace");
    describe_gauge!(LAST_SEQ, "Sequence number of the last change");
    describe_gauge!(NOT_DURABLE, "Changes that are acknowledged but not durable yet");
    describe_gauge!(READY, "1 if searches and writes are served, otherwise 0");
    describe_gauge!(FILE_BYTES, metrics::Unit::Bytes, "Size of the store file");
    describe_gauge!(MEMORY_BYTES, metrics::Unit::Bytes, "Memory of all indexes");
    describe_gauge!(
        RESPONSE_MEMORY_BYTES,
        metrics::Unit::Bytes,
        "Memory reserved for responses that clients have not read yet"
    );
    describe_counter!(COMMITS, "Commits since the start of the server");
}

/// Counts, times and logs a request, and adds the security headers to its response.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let in_flight = InFlight::new();
    let mut response = next.run(request).await;
    drop(in_flight);
    let route = route.as_ref().map_or("(none)", MatchedPath::as_str);
    let status = response.status().as_u16();
    let took = began.elapsed();
    counter!(REQUESTS, "method" => method, "route" => route.to_owned(), "status" => status.to_string())
        .increment(1);
    histogram!(SECONDS, "route" => route.to_owned()).record(took);
    tracing::debug!(method, route, status, ms = took.as_secs_f64() * 1000.0, "request");
    add_security_headers(response.headers_mut());
    response
}

/// The counter of responses with these labels.
pub(super) fn response_counter(method: &Method, route: &str, status: StatusCode) -> Counter {
    counter!(REQUESTS, "method" => method_label(method), "route" => route.to_owned(), "status" => status.as_str().to_owned())
}

/// Counts a request as in progress until dropped, even if the client hangs up.
struct InFlight(metrics::Gauge);

impl InFlight {
    fn new() -> InFlight {
        let gauge = gauge!(IN_FLIGHT);
        gauge.increment(1.0);
        InFlight(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The method as a label. Unknown methods share one, since each label is a time series and clients can invent methods.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Adds headers that keep browsers from sniffing types, leaking referrers, framing and caching. Headers that a handler
/// set stay.
pub(super) fn add_security_headers(headers: &mut HeaderMap) {
    const SECURITY_HEADERS: [(HeaderName, HeaderValue); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(value);
    }
}
