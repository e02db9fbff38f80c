//! Backups.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, header},
};
use futures_util::stream;

use crate::http::{
    AppState, Problem,
    params::{NoParams, Params},
    request_context::RequestContext,
};

/// Streams a backup of all documents, vectors and collections, for `nearfield restore`.
///
/// A complete backup ends with its counts; `nearfield restore` rejects one that was cut off.
#[utoipa::path(
    get, path = "/backup", tag = "operation",
    responses((status = 200, content_type = "application/octet-stream", description = "The backup", body = [u8]))
)]
pub(super) async fn backup(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response<Body>, Problem> {
    let backup = state.service.back_up(&request.cx).await?;
    let chunks = stream::unfold(backup, |mut backup| async {
        let chunk = backup.next().await?;
        Some((chunk, backup))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let content_type = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}
