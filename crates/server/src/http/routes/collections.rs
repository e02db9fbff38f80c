//! Collections, their aliases, and statistics.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;
use service::{DropMode, Service, VectorSchema};
use utoipa::ToSchema;

use crate::{
    access::Grant,
    http::{
        AppState, Problem,
        body::{self, Json},
        error_code::ErrorCode,
        json::{
            collections::{
                AliasRequest, AliasResponse, AliasesResponse, CollectionResponse, CollectionsResponse,
                StatsResponse,
            },
            schema::SchemaBody,
        },
        params::{self, NoParams, Params},
        path::{AliasPath, CollectionPath, Path},
        request_context::RequestContext,
        response,
    },
};

/// Parameters of a creation.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PutParams {
    /// If the collection exists with another schema, rebuild it in the background instead of rejecting the request.
    #[serde(default, deserialize_with = "params::boolean")]
    rebuild: bool,
}

/// Parameters of a deletion.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DropParams {
    /// Whether to keep or delete the documents. Required if they also belong to other collections; otherwise they are
    /// kept by default.
    #[serde(default)]
    #[param(inline)]
    documents: DocumentsParam,
}

/// What happens to the documents of a dropped collection.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DocumentsParam {
    #[default]
    #[serde(skip)]
    Unspecified,
    Keep,
    Delete,
}

/// Lists the collections that the caller's key covers.
#[utoipa::path(get, path = "/collections", tag = "collections", responses((status = 200, body = CollectionsResponse)))]
pub(super) async fn list(
    State(state): State<Arc<AppState>>,
    Extension(grant): Extension<Grant>,
    request: RequestContext,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response, Problem> {
    let collections = state.service.collections(&request.cx).await?;
    let covered = collections.into_iter().filter(|info| grant.covers(&info.name));
    let collections = covered.map(|info| CollectionResponse::new(info, &state.service)).collect();
    Ok(response::json(StatusCode::OK, &CollectionsResponse { collections }))
}

/// Creates a collection if it does not exist.
///
/// An empty body means the fields title, content and a vector embedded from both. The name must not consist of dots
/// only.
#[utoipa::path(
    put, path = "/collections/{c}", tag = "collections", params(CollectionPath, PutParams),
    request_body = Option<SchemaBody>,
    responses(
        (status = 200, body = CollectionResponse, description = "The collection exists with this schema"),
        (status = 201, body = CollectionResponse, description = "Created"),
        (status = 202, body = CollectionResponse, description = "Being rebuilt with this schema; the previous version serves until the rebuild is complete"),
    )
)]
pub(super) async fn put(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(CollectionPath { collection: name }): Path<CollectionPath>,
    Params(PutParams { rebuild }): Params<PutParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut body: SchemaBody = body::json_or_default(&state, &headers, body).await?;
    for (model, dim) in body.unset_dimensions() {
        *dim = Some(state.service.model_dim(&request.cx, model).await?);
    }
    let default_quantization =
        |field: &str, vector: &VectorSchema| state.service.default_quantization(&name, field, vector);
    let schema = body.into_schema(default_quantization)?;
    let (info, is_new) = state.service.put_collection(&request.cx, &name, schema, rebuild).await?;
    let status = match (is_new, info.rebuilding) {
        (true, _) => StatusCode::CREATED,
        (false, Some(_)) => StatusCode::ACCEPTED,
        (false, None) => StatusCode::OK,
    };
    Ok(response::json(status, &CollectionResponse::new(info, &state.service)))
}

/// Gets the schema and counts of a collection.
#[utoipa::path(
    get, path = "/collections/{c}", tag = "collections", params(CollectionPath),
    responses((status = 200, body = CollectionResponse))
)]
pub(super) async fn get(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(CollectionPath { collection: name }): Path<CollectionPath>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response, Problem> {
    let info = state.service.collection(&request.cx, &name).await?;
    Ok(response::json(StatusCode::OK, &CollectionResponse::new(info, &state.service)))
}

/// Drops a collection. Its documents are kept unless `documents=delete`. If they also belong to other collections, whose
/// readers can read them from then on, `documents` must be given. An alias is rejected with 409.
#[utoipa::path(
    delete, path = "/collections/{c}", tag = "collections", params(CollectionPath, DropParams),
    responses((status = 204, description = "Dropped"))
)]
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(CollectionPath { collection: name }): Path<CollectionPath>,
    Params(DropParams { documents }): Params<DropParams>,
) -> Result<Response, Problem> {
    let documents = match documents {
        DocumentsParam::Unspecified => {
            reject_shared_documents(&state.service, &name)?;
            DropMode::KeepDocuments
        }
        DocumentsParam::Keep => DropMode::KeepDocuments,
        DocumentsParam::Delete => DropMode::DeleteDocuments,
    };
    state.service.drop_collection(&request.cx, &name, documents).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Rejects dropping a collection whose documents would silently remain in others: a key for one of those could read them
/// from then on.
fn reject_shared_documents(service: &Service, name: &str) -> Result<(), Problem> {
    let others = service.overlapping(name)?;
    if others.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "documents of {name:?} can also belong to {}: add documents=keep to leave them there, for everyone who may read it, or documents=delete to delete them",
        others.join(", ")
    );
    Err(Problem::new(ErrorCode::PrefixOverlap, detail).at("documents"))
}

/// Lists the aliases that the caller's key covers, or whose collections it covers, in alphabetical order.
#[utoipa::path(get, path = "/aliases", tag = "collections", responses((status = 200, body = AliasesResponse)))]
pub(super) async fn list_aliases(
    State(state): State<Arc<AppState>>,
    Extension(grant): Extension<Grant>,
    request: RequestContext,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response, Problem> {
    let collections = state.service.collections(&request.cx).await?;
    let mut aliases: Vec<AliasResponse> = collections
        .into_iter()
        .flat_map(|info| {
            let collection = info.name;
            let aliases = info.aliases.into_iter();
            aliases.map(move |alias| AliasResponse { alias, collection: collection.clone() })
        })
        .filter(|found| grant.covers(&found.alias) || grant.covers(&found.collection))
        .collect();
    aliases.sort_by(|one, other| one.alias.cmp(&other.alias));
    Ok(response::json(StatusCode::OK, &AliasesResponse { aliases }))
}

/// Points an alias at a collection.
#[utoipa::path(
    put, path = "/aliases/{a}", tag = "collections", params(AliasPath), request_body = AliasRequest,
    responses((status = 200, body = AliasResponse))
)]
pub(super) async fn put_alias(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(AliasPath { alias }): Path<AliasPath>,
    Params(NoParams {}): Params<NoParams>,
    Json(AliasRequest { collection }): Json<AliasRequest>,
) -> Result<Response, Problem> {
    state.service.put_alias(&request.cx, &alias, &collection).await?;
    Ok(response::json(StatusCode::OK, &AliasResponse { alias, collection }))
}

/// Removes an alias.
#[utoipa::path(
    delete, path = "/aliases/{a}", tag = "collections", params(AliasPath),
    responses((status = 204, description = "Removed"))
)]
pub(super) async fn delete_alias(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(AliasPath { alias }): Path<AliasPath>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response, Problem> {
    state.service.drop_alias(&request.cx, &alias).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// Gets the counts of the whole store.
#[utoipa::path(get, path = "/stats", tag = "operation", responses((status = 200, body = StatsResponse)))]
pub(super) async fn stats(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response, Problem> {
    let stats = state.service.stats(&request.cx).await?;
    Ok(response::json(StatusCode::OK, &StatsResponse::from(stats)))
}
