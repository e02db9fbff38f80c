//! What is measured and logged of every request, and the headers every answer carries.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use metrics::{Counter, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Requests answered, by method, route and status.
const REQUESTS: &str = "nearfield_http_requests_total";
/// Seconds from a request's head to its answer's.
const SECONDS: &str = "nearfield_http_request_seconds";
/// Requests being answered.
const IN_FLIGHT: &str = "nearfield_http_requests_in_flight";
/// Open connections.
pub(crate) const CONNECTIONS: &str = "nearfield_http_connections";
/// Documents in the keyspace.
pub(super) const DOCUMENTS: &str = "nearfield_documents";
/// The last change's number.
pub(super) const LAST_SEQ: &str = "nearfield_last_seq";
/// Changes that were answered and are not durable.
pub(super) const NOT_DURABLE: &str = "nearfield_changes_not_durable";
/// Whether `/readyz` says so.
pub(super) const READY: &str = "nearfield_ready";
/// Bytes of the store file.
pub(super) const FILE_BYTES: &str = "nearfield_store_file_bytes";
/// Bytes in memory, over all collections.
pub(super) const MEMORY_BYTES: &str = "nearfield_index_memory_bytes";
/// Commits since the server was started.
pub(super) const COMMITS: &str = "nearfield_commits_total";

/// Upper ends of the duration histogram's buckets, in seconds.
pub(crate) const SECONDS_BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 1.0, 4.0, 16.0];

/// Tells the installed recorder what the names mean. RequestContext it once, after installing one.
pub fn describe_metrics() {
    describe_counter!(REQUESTS, "Requests answered, by method, route and status");
    describe_histogram!(
        SECONDS,
        metrics::Unit::Seconds,
        "Time from a request's head to its answer's, by route"
    );
    describe_gauge!(IN_FLIGHT, "Requests being answered");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_gauge!(DOCUMENTS, "Documents in the keyspace");
    describe_gauge!(LAST_SEQ, "Number of the last change");
    describe_gauge!(NOT_DURABLE, "Changes that were acknowledged and are not durable yet");
    describe_gauge!(READY, "Whether searches are answered correctly and writes are taken, 1 or 0");
    describe_gauge!(FILE_BYTES, metrics::Unit::Bytes, "Size of the store file");
    describe_gauge!(MEMORY_BYTES, metrics::Unit::Bytes, "Memory of all indexes");
    describe_counter!(COMMITS, "Commits since the server was started");
}

/// Counts, times and logs a request, and dresses its answer.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = label(request.method());
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

/// The counter of requests that are answered so.
pub(super) fn requests(method: &Method, route: &str, status: StatusCode) -> Counter {
    counter!(REQUESTS, "method" => label(method), "route" => route.to_owned(), "status" => status.as_str().to_owned())
}

/// Counts a request for as long as it lives, even if its client hangs up.
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

/// Methods as labels: clients make up words, and each would be a new time series.
fn label(method: &Method) -> &'static str {
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

/// Headers that keep browsers from guessing, leaking, framing and storing. What a handler set stays.
pub(super) fn add_security_headers(headers: &mut HeaderMap) {
    const EVERYWHERE: [(HeaderName, HeaderValue); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    for (name, value) in EVERYWHERE {
        headers.entry(name).or_insert(value);
    }
}
