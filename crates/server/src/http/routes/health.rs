//! Health checks, metrics and the OpenAPI document.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderValue, Response, StatusCode, header},
};
use metrics::{counter, gauge};

use crate::access::Grant;
use crate::http::{
    AppState, Problem,
    error_code::ErrorCode,
    json::health::{LivenessResponse, ReadinessResponse},
    request_context::RequestContext,
    response, telemetry,
};
use service::Readiness;

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "operation", security(()), responses((status = 200, body = LivenessResponse)))]
pub(super) async fn healthz() -> Response<Body> {
    response::json(StatusCode::OK, &LivenessResponse { status: "ok" })
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/livez", tag = "operation", security(()), responses((status = 200, body = LivenessResponse)))]
pub(super) async fn livez() -> Response<Body> {
    healthz().await
}

/// Whether searches and writes are served.
///
/// If the server has keys, only a key for all collections gets the notes; other callers get their number.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", security(()),
    responses((status = 200, body = ReadinessResponse), (status = 503, body = ReadinessResponse, description = "Not ready, or stopping"))
)]
pub(super) async fn readyz(
    State(state): State<Arc<AppState>>,
    grant: Option<Extension<Grant>>,
) -> Response<Body> {
    let stopping = state.settings.stopping.is_cancelled();
    let (ready, notes) = if stopping {
        (false, vec!["the server is stopping".to_owned()])
    } else {
        let Readiness { ready, notes } = state.service.readiness();
        let may_read_notes = grant.is_some_and(|Extension(grant)| grant.covers_all());
        (ready, if may_read_notes { notes } else { summary(&notes) })
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = response::json(status, &ReadinessResponse { ready, notes });
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The notes for callers without a key for all collections: notes name collections, documents, directories and hosts.
fn summary(notes: &[String]) -> Vec<String> {
    match notes.len() {
        0 => Vec::new(),
        count => vec![format!("notes that only a key for all collections can read: {count}")],
    }
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
) -> Result<Response<Body>, Problem> {
    let Some(recorder) = &state.settings.metrics else {
        let detail = "this process records no metrics: use `nearfield serve`";
        return Err(Problem::new(ErrorCode::MetricsOff, detail));
    };
    gauge!(telemetry::READY).set(if state.service.readiness().ready { 1.0 } else { 0.0 });
    gauge!(telemetry::RESPONSE_MEMORY_BYTES).set(state.settings.response_budget.reserved() as f64);
    match state.service.stats(&request.cx).await {
        Ok(stats) => {
            gauge!(telemetry::DOCUMENTS).set(stats.documents as f64);
            gauge!(telemetry::LAST_SEQ).set(stats.last_seq as f64);
            gauge!(telemetry::NOT_DURABLE).set(stats.last_seq.saturating_sub(stats.durable_seq) as f64);
            gauge!(telemetry::FILE_BYTES).set(stats.file_bytes as f64);
            gauge!(telemetry::MEMORY_BYTES).set(stats.memory_bytes as f64);
            counter!(telemetry::COMMITS).absolute(stats.commits);
        }
        // The gauges of the store keep their values; the other metrics matter most when the store fails.
        Err(error) => tracing::debug!(%error, "cannot get the counts of the store"),
    }
    let mut response = Response::new(Body::from(recorder.render()));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// The OpenAPI document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation",
    responses((status = 200, body = Object, content_type = "application/json"))
)]
pub(super) async fn openapi(State(state): State<Arc<AppState>>) -> Response<Body> {
    let mut response = response::shared(state.openapi.clone());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
