//! Where time goes, and what to turn.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{Response, StatusCode, Uri},
};

use crate::http::{Door, Problem, call::Call, json::doctor::DiagnosisView, query::Query, reply};

/// Where the time of the last searches went, in sentences, and what to turn.
#[utoipa::path(get, path = "/doctor", tag = "operation", responses((status = 200, body = DiagnosisView)))]
pub(super) async fn doctor(
    State(door): State<Arc<Door>>,
    call: Call,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let diagnosis = door.service.diagnose(&call.cx).await?;
    Ok(reply::json(StatusCode::OK, &DiagnosisView::from(diagnosis)))
}
