//! Collections and their aliases.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

use crate::access::Grant;
use crate::http::{
    AppState, Problem,
    body::{self, Json},
    json::{
        collections::{AliasRequest, AliasResponse, CollectionResponse, CollectionsResponse, StatsResponse},
        schema::SchemaBody,
    },
    path::Path,
    query::{self, Query},
    request_context::RequestContext,
    response,
};
use service::{DropMode, VectorSchema};

/// All collections that the caller's key is for.
#[utoipa::path(get, path = "/collections", tag = "collections", responses((status = 200, body = CollectionsResponse)))]
pub(super) async fn list(
    State(state): State<Arc<AppState>>,
    Extension(grant): Extension<Grant>,
    request: RequestContext,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    let collections = state.service.collections(&request.cx).await?;
    let reached = collections.into_iter().filter(|info| grant.covers(&info.name));
    let collections = reached.map(|info| CollectionResponse::new(info, &state.service)).collect();
    Ok(response::json(StatusCode::OK, &CollectionsResponse { collections }))
}

/// Makes a collection, or finds that it stands already.
///
/// An empty body means title, content and a vector embedded from both.
#[utoipa::path(
    put, path = "/collections/{c}", tag = "collections",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Name: 1 to 128 of A-Z a-z 0-9 _ . : -, not all dots"),
        ("rebuild" = Option<bool>, Query, description = "Where it stands with another schema, build it anew in the background"),
    ),
    request_body = Option<SchemaBody>,
    responses(
        (status = 200, body = CollectionResponse, description = "It stands with this schema"),
        (status = 201, body = CollectionResponse, description = "Made"),
        (status = 202, body = CollectionResponse, description = "Being rebuilt with this schema; the old one answers until it is complete"),
    )
)]
pub(super) async fn put(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let rebuild = Query::parse(uri.query(), &["rebuild"])?.flag("rebuild")?;
    let mut shape: SchemaBody = body::json_or_default(&state, &headers, body).await?;
    for (model, dim) in shape.unset_dimensions() {
        *dim = Some(state.service.model_dim(&request.cx, model).await?);
    }
    let open = |field: &str, vector: &VectorSchema| state.service.default_quantization(&name, field, vector);
    let schema = shape.into_schema(&name, open)?;
    let (info, made) = state.service.put_collection(&request.cx, &name, schema, rebuild).await?;
    let status = match (made, info.rebuilding) {
        (true, _) => StatusCode::CREATED,
        (false, Some(_)) => StatusCode::ACCEPTED,
        (false, None) => StatusCode::OK,
    };
    Ok(response::json(status, &CollectionResponse::new(info, &state.service)))
}

/// One collection.
#[utoipa::path(
    get, path = "/collections/{c}", tag = "collections",
    params(("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias")),
    responses((status = 200, body = CollectionResponse))
)]
pub(super) async fn get(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    let info = state.service.collection(&request.cx, &name).await?;
    Ok(response::json(StatusCode::OK, &CollectionResponse::new(info, &state.service)))
}

/// Drops a collection. Its documents stay unless told otherwise.
#[utoipa::path(
    delete, path = "/collections/{c}", tag = "collections",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection; an alias is refused with 409"),
        ("documents" = Option<String>, Query, pattern = "^(keep|delete)$", description = "keep or delete; keep, if left out"),
    ),
    responses((status = 204, description = "Dropped"))
)]
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::parse(uri.query(), &["documents"])?;
    let documents = match query.text("documents") {
        None | Some("keep") => DropMode::KeepDocuments,
        Some("delete") => DropMode::DeleteDocuments,
        Some(found) => return Err(query::refuse("documents", "keep or delete", found)),
    };
    state.service.drop_collection(&request.cx, &name, documents).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Points an alias at a collection.
#[utoipa::path(
    put, path = "/aliases/{a}", tag = "collections",
    params(("a" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Name: 1 to 128 of A-Z a-z 0-9 _ . : -, not all dots")),
    request_body = AliasRequest,
    responses((status = 200, body = AliasResponse))
)]
pub(super) async fn put_alias(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(alias): Path<String>,
    uri: Uri,
    Json(AliasRequest { collection }): Json<AliasRequest>,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    state.service.put_alias(&request.cx, &alias, &collection).await?;
    Ok(response::json(StatusCode::OK, &AliasResponse { alias, collection }))
}

/// Removes an alias.
#[utoipa::path(
    delete, path = "/aliases/{a}", tag = "collections",
    params(("a" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "The alias")),
    responses((status = 204, description = "Removed"))
)]
pub(super) async fn delete_alias(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(alias): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    state.service.drop_alias(&request.cx, &alias).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Counts of the whole system.
#[utoipa::path(get, path = "/stats", tag = "operation", responses((status = 200, body = StatsResponse)))]
pub(super) async fn stats(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    let stats = state.service.stats(&request.cx).await?;
    Ok(response::json(StatusCode::OK, &StatsResponse::from(stats)))
}
