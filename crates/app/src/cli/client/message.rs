//! Requests to the HTTP interface and its responses, independent of how they are transported.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::{HeaderMap, Method, header};
use serde::de::DeserializeOwned;

use crate::cli::{error::ApiError, terminal};

/// A request.
#[derive(Debug)]
pub(crate) struct ApiRequest<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// Content type and body.
    pub(crate) body: Option<(&'static str, &'a [u8])>,
}

/// A response with any status.
#[derive(Clone, Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: u16,
    /// How long to wait before retrying.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// The body of an error response (RFC 9457).
#[derive(Default, serde::Deserialize)]
struct ProblemDetails {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    deleted: u64,
}

impl ApiResponse {
    /// The response if its status is a success, otherwise the error.
    pub(crate) fn error_for_status(self) -> Result<ApiResponse, ApiError> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.to_error()) }
    }

    /// The error that the response describes.
    pub(crate) fn to_error(&self) -> ApiError {
        let problem = serde_json::from_slice::<ProblemDetails>(&self.body).unwrap_or_default();
        let ProblemDetails { mut detail, code, deleted } = problem;
        if detail.is_empty() {
            let text = terminal::one_line(&String::from_utf8_lossy(&self.body), 200);
            detail = format!("the server responded with status {}: {text:?}", self.status);
        }
        if self.status == 401 {
            detail.push_str(" (set the API key with --api-key or NEARFIELD_API_KEY)");
        }
        ApiError { status: self.status, code, detail, deleted }
    }

    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).with_context(|| {
            let text = terminal::one_line(&String::from_utf8_lossy(&self.body), 200);
            format!("the response is not from a Nearfield server: {text:?}")
        })
    }
}

/// The value of a `Retry-After` header in seconds.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_error_carries_the_servers_detail_and_code() {
        let response = |status, body: &str| ApiResponse { status, retry_after: None, body: body.into() };
        let api_error = response(422, r#"{"title":"x","detail":"no such field","code":"filter-field"}"#)
            .error_for_status()
            .unwrap_err();
        assert_eq!(
            (api_error.to_string().as_str(), api_error.code.as_str()),
            ("no such field", "filter-field")
        );
        let api_error = response(502, "<html>\nBad gateway").error_for_status().unwrap_err();
        assert!(
            api_error.to_string().contains("502") && api_error.to_string().contains("<html> Bad gateway")
        );
        assert!(response(401, r#"{"detail":"no key"}"#).to_error().to_string().contains("NEARFIELD_API_KEY"));
        assert!(response(204, "").error_for_status().is_ok());
    }
}
