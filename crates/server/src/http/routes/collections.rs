//! Collections and their aliases.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

use crate::http::{
    Door, Problem,
    auth::Grant,
    body::{self, Json},
    call::Call,
    json::{
        info::{AliasShape, AliasView, CollectionsView, InfoView, StatsView},
        schema::SchemaShape,
    },
    path::Path,
    query::{self, Query},
    reply,
};
use service::{Documents, VectorSchema};

/// All collections that the caller's key is for.
#[utoipa::path(get, path = "/collections", tag = "collections", responses((status = 200, body = CollectionsView)))]
pub(super) async fn list(
    State(door): State<Arc<Door>>,
    Extension(grant): Extension<Grant>,
    call: Call,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    let collections = door.service.collections(&call.cx).await?;
    let reached = collections.into_iter().filter(|info| grant.reaches(&info.name));
    let collections = reached.map(|info| InfoView::new(info, &door.service)).collect();
    Ok(reply::json(StatusCode::OK, &CollectionsView { collections }))
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
    request_body = Option<SchemaShape>,
    responses(
        (status = 200, body = InfoView, description = "It stands with this schema"),
        (status = 201, body = InfoView, description = "Made"),
        (status = 202, body = InfoView, description = "Being rebuilt with this schema; the old one answers until it is complete"),
    )
)]
pub(super) async fn put(
    State(door): State<Arc<Door>>,
    call: Call,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let rebuild = Query::parse(uri.query(), &["rebuild"])?.flag("rebuild")?;
    let mut shape: SchemaShape = body::json_or_default(&door, &headers, body).await?;
    for (model, dim) in shape.open_dims() {
        *dim = Some(door.service.model_dim(&call.cx, model).await?);
    }
    let open = |field: &str, vector: &VectorSchema| door.service.default_quantization(&name, field, vector);
    let schema = shape.into_schema(&name, open)?;
    let (info, made) = door.service.put_collection(&call.cx, &name, schema, rebuild).await?;
    let status = match (made, info.rebuilding) {
        (true, _) => StatusCode::CREATED,
        (false, Some(_)) => StatusCode::ACCEPTED,
        (false, None) => StatusCode::OK,
    };
    Ok(reply::json(status, &InfoView::new(info, &door.service)))
}

/// One collection.
#[utoipa::path(
    get, path = "/collections/{c}", tag = "collections",
    params(("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias")),
    responses((status = 200, body = InfoView))
)]
pub(super) async fn get(
    State(door): State<Arc<Door>>,
    call: Call,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    let info = door.service.collection(&call.cx, &name).await?;
    Ok(reply::json(StatusCode::OK, &InfoView::new(info, &door.service)))
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
    State(door): State<Arc<Door>>,
    call: Call,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::parse(uri.query(), &["documents"])?;
    let documents = match query.text("documents") {
        None | Some("keep") => Documents::Keep,
        Some("delete") => Documents::Delete,
        Some(found) => return Err(query::refuse("documents", "keep or delete", found)),
    };
    door.service.drop_collection(&call.cx, &name, documents).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Points an alias at a collection.
#[utoipa::path(
    put, path = "/aliases/{a}", tag = "collections",
    params(("a" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Name: 1 to 128 of A-Z a-z 0-9 _ . : -, not all dots")),
    request_body = AliasShape,
    responses((status = 200, body = AliasView))
)]
pub(super) async fn put_alias(
    State(door): State<Arc<Door>>,
    call: Call,
    Path(alias): Path<String>,
    uri: Uri,
    Json(AliasShape { collection }): Json<AliasShape>,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    door.service.put_alias(&call.cx, &alias, &collection).await?;
    Ok(reply::json(StatusCode::OK, &AliasView { alias, collection }))
}

/// Removes an alias.
#[utoipa::path(
    delete, path = "/aliases/{a}", tag = "collections",
    params(("a" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "The alias")),
    responses((status = 204, description = "Removed"))
)]
pub(super) async fn delete_alias(
    State(door): State<Arc<Door>>,
    call: Call,
    Path(alias): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    door.service.drop_alias(&call.cx, &alias).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Counts of the whole system.
#[utoipa::path(get, path = "/stats", tag = "operation", responses((status = 200, body = StatsView)))]
pub(super) async fn stats(State(door): State<Arc<Door>>, call: Call, uri: Uri) -> Result<Response, Problem> {
    Query::parse(uri.query(), &[])?;
    let stats = door.service.stats(&call.cx).await?;
    Ok(reply::json(StatusCode::OK, &StatsView::from(stats)))
}
