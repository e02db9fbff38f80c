//! Failures as RFC 9457 problem details: the only place where errors of the service become HTTP statuses.

use std::{any::Any, num::NonZero, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error_code::ErrorCode, telemetry};
use service::{Error, ErrorKind};

/// Why a request failed (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:nearfield:` and the code.
    #[serde(rename = "type")]
    urn: String,
    /// The reason phrase of the status.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, where, and what to do.
    detail: String,
    #[schema(schema_with = code_schema)]
    code: &'static str,
    /// The field, parameter, header or position that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// Documents that were deleted before a deletion by filter ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    deleted: Option<NonZero<u64>>,
    /// Value of the `Retry-After` header.
    #[serde(skip)]
    retry_after_s: Option<NonZero<u16>>,
}

fn code_schema() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, Type};
    ObjectBuilder::new().schema_type(Type::String).description(Some(ErrorCode::list())).build()
}

impl Problem {
    /// A problem with the usual status of its code.
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Problem {
        Problem::from_parts(code.status(), code.as_str(), detail.into())
    }

    fn from_parts(status: StatusCode, code: &'static str, detail: String) -> Problem {
        Problem {
            urn: format!("urn:nearfield:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
            code,
            at: None,
            deleted: None,
            retry_after_s: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(NonZero::<u16>::MIN),
        }
    }

    /// The same problem with another of the statuses of its code.
    pub(super) fn with_status(self, status: StatusCode) -> Problem {
        debug_assert!(
            ErrorCode::parse(self.code).is_some_and(|code| code.has_status(status)),
            "{} with {status} is not listed",
            self.code
        );
        Problem { at: self.at, ..Problem::from_parts(status, self.code, self.detail) }
    }

    /// The same problem, at a field, parameter, header or position.
    pub(super) fn at(mut self, at: impl Into<String>) -> Problem {
        self.at = Some(at.into());
        self
    }

    /// The same problem after some documents were deleted.
    pub(super) fn after_deleting(mut self, deleted: u64) -> Problem {
        self.deleted = NonZero::new(deleted);
        if deleted > 0 {
            self.detail.push_str(&format!(
                " ({deleted} documents were deleted; repeat the request to delete the others that match)"
            ));
        }
        self
    }

    /// The same problem with a `Retry-After` of `wait`, at most an hour.
    pub(super) fn retry_after(mut self, wait: Duration) -> Problem {
        let seconds = wait.as_secs_f64().ceil().clamp(1.0, 3600.0) as u16;
        self.retry_after_s = NonZero::new(seconds);
        self
    }

    /// The same problem with `more` after its detail.
    pub(super) fn append_detail(mut self, more: &str) -> Problem {
        self.detail.push_str(more);
        self
    }

    /// 412 in place of 409, for requests with a precondition. Other problems stay as they are.
    pub(super) fn into_precondition_failed(mut self) -> Problem {
        if self.status == StatusCode::CONFLICT {
            self.status = StatusCode::PRECONDITION_FAILED.as_u16();
            self.title = "Precondition Failed";
        }
        self
    }

    /// Headers and body of the response.
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

    /// The response as bytes of HTTP/1.1, for a connection that is closed after it.
    pub(super) fn raw_response(&self) -> Bytes {
        let (mut headers, body) = self.parts();
        telemetry::add_security_headers(&mut headers);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut response = format!("HTTP/1.1 {}\r\n", self.status()).into_bytes();
        for (name, value) in &headers {
            response.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        [&response[..], b"\r\n", &body].concat().into()
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).expect("the status comes from a StatusCode")
    }
}

impl From<Error> for Problem {
    /// The problem with the usual status of the error's code, or of its kind if the code is not listed.
    fn from(error: Error) -> Problem {
        if error.kind == ErrorKind::Internal {
            tracing::error!(code = error.code, at = error.at, "{}", error.message);
        }
        let code = ErrorCode::parse(error.code);
        debug_assert!(code.is_some() || cfg!(test), "the error code {:?} is not listed", error.code);
        let status = code.map_or_else(|| status_of_kind(error.kind), ErrorCode::status);
        Problem { at: error.at, ..Problem::from_parts(status, error.code, error.message) }
    }
}

fn status_of_kind(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Overloaded | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
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

/// The response to a request whose handler panicked. Only the log has the panic's message.
pub(super) fn panic_response(panic: Box<dyn Any + Send>) -> Response<Body> {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)");
    tracing::error!(panic = message, "a request handler panicked");
    Problem::new(ErrorCode::Internal, "internal error; the server's log has details").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_depend_on_the_code_or_else_the_kind() {
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
        assert_eq!(status(ErrorKind::Invalid, "collection-ambiguous"), 400);
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_without_its_message() {
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
    fn problems_follow_rfc_9457() {
        let problem = Problem::new(ErrorCode::Filter, "expected ]").at("filter");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"urn:nearfield:filter","title":"Unprocessable Entity","status":422,"detail":"expected ]","code":"filter","at":"filter"}"#
        );
        assert_eq!(
            problem.clone().into_precondition_failed(),
            problem,
            "only a conflict is a failed precondition"
        );
    }
}
