//! Diagnosis of search performance.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{Response, StatusCode},
};

use crate::http::{
    AppState, Problem,
    json::doctor::DiagnosisResponse,
    params::{NoParams, Params},
    request_context::RequestContext,
    response,
};

/// Shows how long the stages of the last searches took, and advises which settings to change.
#[utoipa::path(get, path = "/doctor", tag = "operation", responses((status = 200, body = DiagnosisResponse)))]
pub(super) async fn doctor(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response<Body>, Problem> {
    let diagnosis = state.service.diagnose(&request.cx).await?;
    Ok(response::json(StatusCode::OK, &DiagnosisResponse::from(diagnosis)))
}
