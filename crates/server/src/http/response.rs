//! Building responses.

use std::fmt::Write;

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;

use super::charge::Charged;
use service::Timing;

/// The header with the durations of the stages, which browsers display.
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON response.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut body = Vec::with_capacity(256);
    serde_json::to_writer(&mut body, value)
        .expect("responses have string keys, and writing to a Vec cannot fail");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// A response of bytes that all such responses share, so that it does not count against the response budget.
pub(super) fn shared(bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    response.extensions_mut().insert(Charged);
    response
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Adds `Server-Timing`, in milliseconds as the header requires.
pub(super) fn with_timing(mut response: Response<Body>, timing: &Timing) -> Response<Body> {
    let mut text = String::with_capacity(96);
    for (stage, us) in timing.stages() {
        let comma = if text.is_empty() { "" } else { ", " };
        write!(text, "{comma}{stage};dur={}.{:03}", us / 1000, us % 1000).expect("writing to a String");
    }
    let value = HeaderValue::from_str(&text).expect("digits and ASCII words");
    response.headers_mut().insert(SERVER_TIMING, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_is_in_milliseconds() {
        let timing = Timing { queue_us: 12, embed_us: 1_034, total_us: 2_000_000, ..Timing::default() };
        let response = with_timing(empty(StatusCode::OK), &timing);
        assert_eq!(
            response.headers()[SERVER_TIMING],
            "queue;dur=0.012, embed;dur=1.034, filter;dur=0.000, search;dur=0.000, fetch;dur=0.000, total;dur=2000.000"
        );
    }
}
