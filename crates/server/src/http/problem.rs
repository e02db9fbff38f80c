//! Failures as RFC 9457 problem details: the one place where kinds of failure become statuses.

use std::{any::Any, borrow::Cow, num::NonZero, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::telemetry;
use service::{Error, ErrorKind};

/// Why a request failed (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:nearfield:` and the code.
    #[serde(rename = "type")]
    urn: String,
    /// The kind of failure.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was wrong, where, and what to do.
    detail: String,
    /// A stable word for programs.
    #[schema(value_type = String)]
    code: Cow<'static, str>,
    /// The field, parameter or line the trouble is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// Seconds after which to try again, told in the header.
    #[serde(skip)]
    retry_after_s: Option<NonZero<u16>>,
}

impl Problem {
    /// A failure with a stable code.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            urn: format!("urn:nearfield:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code: Cow::Borrowed(code),
            at: None,
            retry_after_s: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(NonZero::<u16>::MIN),
        }
    }

    /// 400: it could not be read.
    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 422: it could be read, but makes no sense.
    pub(super) fn invalid(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// The same failure, at a field, parameter or line.
    pub(super) fn at(mut self, at: impl Into<String>) -> Problem {
        self.at = Some(at.into());
        self
    }

    /// The same failure, worth another try after this time.
    pub(super) fn retry_after(mut self, wait: Duration) -> Problem {
        // An hour at most: nobody waits longer for an answer.
        let seconds = wait.as_secs_f64().ceil().clamp(1.0, 3600.0) as u16;
        self.retry_after_s = NonZero::new(seconds);
        self
    }

    /// The same failure with words after its detail.
    pub(super) fn append_detail(mut self, more: &str) -> Problem {
        self.detail.push_str(more);
        self
    }

    /// 412 in place of 409: the request named what it expected.
    pub(super) fn into_precondition_failed(mut self) -> Problem {
        if self.status == StatusCode::CONFLICT {
            self.status = StatusCode::PRECONDITION_FAILED.as_u16();
            self.title = "Precondition Failed";
        }
        self
    }

    /// Headers and body of the answer that tells of it.
    pub(super) fn parts(&self) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.get()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        (headers, serde_json::to_vec(self).expect("a problem is strings and a number").into())
    }

    /// The whole answer, as it goes over a connection that ends with it.
    pub(super) fn raw_response(&self) -> Bytes {
        let (mut headers, body) = self.parts();
        telemetry::add_security_headers(&mut headers);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut answer = format!("HTTP/1.1 {}\r\n", self.status()).into_bytes();
        for (name, value) in &headers {
            answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        [&answer[..], b"\r\n", &body].concat().into()
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).expect("a status is put in as a StatusCode")
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let status = match error.kind {
            ErrorKind::Invalid if error.code == "collection-ambiguous" => StatusCode::BAD_REQUEST,
            ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Unavailable if error.code.starts_with("deadline") => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Internal => {
                tracing::error!(code = error.code, at = error.at, "{}", error.message);
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Problem { at: error.at, ..Problem::new(status, error.code, error.message) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let (headers, body) = self.parts();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        *response.headers_mut() = headers;
        response
    }
}

/// The answer to a request whose handler panicked. The panic's words go to the log only.
pub(super) fn panic_response(panic: Box<dyn Any + Send>) -> Response<Body> {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)");
    tracing::error!(panic = words, "a request's handler panicked");
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "a fault of the server's own; its log says more",
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        let status =
            |kind, code| Problem::from(Error { kind, code, message: "m".to_owned(), at: None }).status;
        assert_eq!(status(ErrorKind::Invalid, "x"), 422);
        assert_eq!(status(ErrorKind::NotFound, "x"), 404);
        assert_eq!(status(ErrorKind::Conflict, "x"), 409);
        assert_eq!(status(ErrorKind::Overloaded, "x"), 503);
        assert_eq!(status(ErrorKind::Unavailable, "x"), 503);
        assert_eq!(status(ErrorKind::Unavailable, "deadline"), 504);
        assert_eq!(status(ErrorKind::Full, "x"), 507);
        assert_eq!(status(ErrorKind::Internal, "x"), 500);
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_keeps_its_words() {
        use tower::ServiceExt;
        use tower_http::catch_panic::CatchPanicLayer;
        let router = axum::Router::new()
            .route(
                "/",
                axum::routing::get(|| async {
                    if true {
                        panic!("a secret")
                    }
                }),
            )
            .layer(CatchPanicLayer::custom(panic_response));
        let request = axum::http::Request::get("/").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }

    #[test]
    fn a_problem_reads_as_rfc_9457_says() {
        let problem = Problem::invalid("filter-syntax", "expected ]").at("filter");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"urn:nearfield:filter-syntax","title":"Unprocessable Entity","status":422,"detail":"expected ]","code":"filter-syntax","at":"filter"}"#
        );
        assert_eq!(
            problem.clone().into_precondition_failed(),
            problem,
            "only a conflict is a failed precondition"
        );
    }
}
