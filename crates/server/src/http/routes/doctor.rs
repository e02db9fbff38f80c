//! Where time goes, and what to turn.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{Response, StatusCode, Uri},
};

use crate::http::{
    AppState, Problem, json::doctor::DiagnosisResponse, query::Query, request_context::RequestContext,
    response,
};

/// Where the time of the last searches went, in sentences, and what to turn.
#[utoipa::path(get, path = "/doctor", tag = "operation", responses((status = 200, body = DiagnosisResponse)))]
pub(super) async fn doctor(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let diagnosis = state.service.diagnose(&request.cx).await?;
    Ok(response::json(StatusCode::OK, &DiagnosisResponse::from(diagnosis)))
}
