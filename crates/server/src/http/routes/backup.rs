//! A backup of everything.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, Uri, header},
};
use futures_util::stream;

use crate::http::{AppState, Problem, query::Query, request_context::RequestContext};

/// A backup of all documents, vectors and collections as they stand now, for `nearfield restore`.
///
/// A backup that is whole ends with its counts; one that was cut off does not, and is refused.
#[utoipa::path(
    get, path = "/backup", tag = "operation",
    responses((status = 200, content_type = "application/octet-stream", description = "The backup", body = [u8]))
)]
pub(super) async fn backup(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let backup = state.service.back_up(&request.cx).await?;
    let pieces = stream::unfold(backup, |mut backup| async {
        let piece = backup.next().await?;
        Some((piece, backup))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
