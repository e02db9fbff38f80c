//! Health, metrics and the description of it all.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderValue, Response, StatusCode, header},
};
use metrics::{counter, gauge};

use crate::http::{
    Door, Problem,
    auth::Grant,
    call::Call,
    json::health::{AliveView, ReadyView},
    metering, reply,
};
use service::Readiness;

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "operation", security(()), responses((status = 200, body = AliveView)))]
pub(super) async fn healthz() -> Response<Body> {
    reply::json(StatusCode::OK, &AliveView { status: "ok" })
}

/// Whether the process answers.
#[utoipa::path(get, path = "/livez", tag = "operation", security(()), responses((status = 200, body = AliveView)))]
pub(super) async fn livez() -> Response<Body> {
    healthz().await
}

/// Whether searches are answered correctly and writes are taken.
///
/// Where there are keys, one that is for all collections is told why not; everybody else only how much there is to tell.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", security(()),
    responses((status = 200, body = ReadyView), (status = 503, body = ReadyView, description = "Not ready, or stopping"))
)]
pub(super) async fn readyz(State(door): State<Arc<Door>>, grant: Option<Extension<Grant>>) -> Response<Body> {
    let stopping = door.settings.stopping.is_cancelled();
    let (ready, notes) = if stopping {
        (false, vec!["the server is stopping".to_owned()])
    } else {
        let Readiness { ready, notes } = door.service.readiness();
        let may_know = grant.is_some_and(|Extension(grant)| grant.reaches_all());
        (ready, if may_know { notes } else { counted(&notes) })
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = reply::json(status, &ReadyView { ready, notes });
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What is told to who may not know more: notes name collections, documents, directories and hosts.
fn counted(notes: &[String]) -> Vec<String> {
    match notes.len() {
        0 => Vec::new(),
        count => vec![format!("notes that only a key for all collections is told: {count}")],
    }
}

/// Measurements, in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(door): State<Arc<Door>>, call: Call) -> Result<Response<Body>, Problem> {
    let Some(recorded) = &door.settings.metrics else {
        let detail = "nothing is measured in this process: `nearfield serve` does";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "metrics-off", detail));
    };
    gauge!(metering::READY).set(if door.service.readiness().ready { 1.0 } else { 0.0 });
    match door.service.stats(&call.cx).await {
        Ok(stats) => {
            gauge!(metering::DOCUMENTS).set(stats.documents as f64);
            gauge!(metering::LAST_SEQ).set(stats.last_seq as f64);
            gauge!(metering::NOT_DURABLE).set(stats.last_seq.saturating_sub(stats.durable_seq) as f64);
            gauge!(metering::FILE_BYTES).set(stats.file_bytes as f64);
            gauge!(metering::MEMORY_BYTES).set(stats.memory_bytes as f64);
            counter!(metering::COMMITS).absolute(stats.commits);
        }
        // What the store counts stays as it was; of all times, now the rest is wanted.
        Err(error) => tracing::debug!(%error, "the store is not counted"),
    }
    let mut response = Response::new(Body::from(recorded.render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation",
    responses((status = 200, body = Object, content_type = "application/json"))
)]
pub(super) async fn openapi(State(door): State<Arc<Door>>) -> Response<Body> {
    let mut response = Response::new(Body::from(door.openapi.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
