//! Reading, writing and listing documents.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode, header},
};
use serde::Deserialize;
use tokio::sync::SemaphorePermit;

use service::{Document, Error, ErrorKind, Outcome, PutResult, Schema, limits};

use crate::http::{
    AppState, Problem,
    body::Json,
    bounds, charge,
    error_code::ErrorCode,
    json::{
        collections::CountResponse,
        document::{self, DocumentFields, DocumentRequest, DocumentResponse},
        write::{DeleteRequest, DeleteResponse, DocumentPageResponse, WriteResponse},
    },
    json_stream::JsonStream,
    params::{self, NoParams, Params},
    path::{CollectionPath, DocumentPath, Path},
    precondition::{self, GetConditions, Precondition, PutConditions, UpdateConditions},
    request_context::RequestContext,
    response,
};

/// Bytes that must be free in the response budget for a page to be read.
const PROBED_BYTES: usize = 1 << 20;

/// Parameters of a read.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct GetParams {
    /// Include vector fields.
    #[serde(default, deserialize_with = "params::boolean")]
    vectors: bool,
}

/// Parameters of a list.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ScrollParams {
    /// A filter in RediSearch syntax.
    #[param(min_length = 1)]
    #[serde(default, deserialize_with = "params::non_empty")]
    filter: Option<String>,
    /// Documents per page. Large documents make a page end earlier.
    #[param(schema_with = bounds::page_limit)]
    #[serde(default, deserialize_with = "params::integer")]
    limit: Option<usize>,
    /// `next` of the previous page.
    #[serde(default, deserialize_with = "params::text")]
    after: Option<String>,
    /// Include vector fields.
    #[serde(default, deserialize_with = "params::boolean")]
    vectors: bool,
}

/// Parameters of a count.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CountParams {
    /// A filter in RediSearch syntax; all documents if left out.
    #[param(min_length = 1)]
    #[serde(default, deserialize_with = "params::non_empty")]
    filter: Option<String>,
}

/// Creates or replaces a document.
#[utoipa::path(
    put, path = "/collections/{c}/documents/{id}", tag = "documents", params(DocumentPath, PutConditions),
    request_body = DocumentRequest,
    responses(
        (status = 200, body = WriteResponse, headers(("ETag" = String, description = "Sequence number of the document"))),
        (status = 201, body = WriteResponse, headers(("ETag" = String, description = "Sequence number of the document"))),
    )
)]
pub(super) async fn put(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(DocumentPath { collection, id }): Path<DocumentPath>,
    Params(NoParams {}): Params<NoParams>,
    headers: HeaderMap,
    Json(document): Json<DocumentRequest>,
) -> Result<Response<Body>, Problem> {
    let precondition = Precondition::of(&headers)?;
    let put = document.into_put(Some(id), precondition.expected()).map_err(|rejected| rejected.problem)?;
    let result = if precondition == Precondition::Present {
        state.service.replace(&request.cx, &collection, put).await
    } else {
        let mut results = state.service.put(&request.cx, &collection, vec![put]).await?;
        results.pop().expect("one result for one document")
    };
    result.map(written).map_err(|error| precondition.problem(error))
}

/// Gets a document.
#[utoipa::path(
    get, path = "/collections/{c}/documents/{id}", tag = "documents",
    params(DocumentPath, GetParams, GetConditions),
    responses(
        (status = 200, body = DocumentResponse, headers(("ETag" = String, description = "Sequence number of the document"))),
        (status = 304, description = "The document still has the given ETag"),
    )
)]
pub(super) async fn get(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(DocumentPath { collection, id }): Path<DocumentPath>,
    Params(GetParams { vectors }): Params<GetParams>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let document = state.service.get(&request.cx, &collection, &id).await?;
    let seq = document.seq;
    let mut response = if precondition::is_unmodified(&headers, seq) {
        response::empty(StatusCode::NOT_MODIFIED)
    } else {
        let schema = state.service.schema(&collection)?;
        let mut body = JsonStream::default();
        body.elements(vec![document], document::memory, move |document, to| {
            to.serialize(&document_response(&id, document, &schema, vectors))
        });
        body.into_response(&request)?
    };
    response.headers_mut().insert(header::ETAG, precondition::etag(seq));
    Ok(response)
}

/// Changes some fields of a document; null removes a field.
#[utoipa::path(
    patch, path = "/collections/{c}/documents/{id}", tag = "documents", params(DocumentPath, UpdateConditions),
    request_body = DocumentRequest,
    responses((status = 200, body = WriteResponse, headers(("ETag" = String, description = "Sequence number of the document"))))
)]
pub(super) async fn patch(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(DocumentPath { collection, id }): Path<DocumentPath>,
    Params(NoParams {}): Params<NoParams>,
    headers: HeaderMap,
    Json(document): Json<DocumentRequest>,
) -> Result<Response<Body>, Problem> {
    let precondition = Precondition::of_update(&headers)?;
    let patch = document.into_patch(id, precondition.expected())?;
    let result = state.service.patch(&request.cx, &collection, patch).await;
    result.map(written).map_err(|error| precondition.problem(error))
}

/// Deletes a document.
#[utoipa::path(
    delete, path = "/collections/{c}/documents/{id}", tag = "documents", params(DocumentPath, UpdateConditions),
    responses((status = 204, description = "Deleted"))
)]
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(DocumentPath { collection, id }): Path<DocumentPath>,
    Params(NoParams {}): Params<NoParams>,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let precondition = Precondition::of_update(&headers)?;
    match state.service.delete(&request.cx, &collection, &id, precondition.expected()).await {
        Ok(true) => Ok(response::empty(StatusCode::NO_CONTENT)),
        Ok(false) => {
            let detail = format!("there is no document {id:?} in collection {collection:?}");
            let error = Error::new(ErrorKind::NotFound, "document-not-found", detail).at("id");
            Err(precondition.problem(error))
        }
        Err(error) => Err(precondition.problem(error)),
    }
}

/// Lists the documents of a collection, in the order in which they were first written.
#[utoipa::path(
    get, path = "/collections/{c}/documents", tag = "documents", params(CollectionPath, ScrollParams),
    responses((status = 200, body = DocumentPageResponse))
)]
pub(super) async fn scroll(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(CollectionPath { collection }): Path<CollectionPath>,
    Params(params): Params<ScrollParams>,
) -> Result<Response<Body>, Problem> {
    let ScrollParams { filter, limit, after, vectors } = params;
    let limit = limit.unwrap_or(limits::PAGE_DEFAULT);
    let (filter, after) = (filter.as_deref(), after.as_deref());
    let schema = state.service.schema(&collection)?;
    let _permit = page_permit(&state, &request).await?;
    let page = state.service.scroll(&request.cx, &collection, filter, after, limit).await?;
    let service = state.service.clone();
    let mut body = JsonStream::default();
    let envelope = DocumentPageResponse { documents: Vec::new(), next: page.next };
    body.object(&envelope, "documents", |body| {
        body.elements(page.documents, document::memory, move |document, to| {
            let id = service.id_of(&schema, &document.key);
            to.serialize(&document_response(&id, document, &schema, vectors))
        });
    });
    body.into_response(&request)
}

/// Permission to read a page. Until its size is known and reserved, the page is not counted, so that only few may be read
/// at the same time, and none for a caller whose share of the budget is used up.
async fn page_permit<'a>(
    state: &'a AppState,
    request: &RequestContext,
) -> Result<SemaphorePermit<'a>, Problem> {
    let timeout = match request.cx.deadline {
        Some(deadline) => deadline.saturating_duration_since(Instant::now()),
        None => state.settings.overload_retry_timeout,
    };
    let permit = tokio::time::timeout(timeout, state.page_permits.acquire()).await.map_err(|_| {
        let detail =
            "the request's time limit passed while it waited for other lists of documents to be read";
        Problem::new(ErrorCode::Deadline, detail)
    })?;
    if !request.response_budget.has_room(request.caller_id, PROBED_BYTES) {
        return Err(charge::budget_exhausted());
    }
    Ok(permit.expect("the semaphore is never closed"))
}

/// Counts the documents that match a filter.
#[utoipa::path(
    get, path = "/collections/{c}/count", tag = "documents", params(CollectionPath, CountParams),
    responses((status = 200, body = CountResponse))
)]
pub(super) async fn count(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(CollectionPath { collection }): Path<CollectionPath>,
    Params(CountParams { filter }): Params<CountParams>,
) -> Result<Response<Body>, Problem> {
    let count = state.service.count(&request.cx, &collection, filter.as_deref()).await?;
    Ok(response::json(StatusCode::OK, &CountResponse { count }))
}

/// Deletes every document that matches a filter. If that takes longer than the request may, 504 says how many were
/// deleted, and repeating the request deletes the others.
#[utoipa::path(
    post, path = "/collections/{c}/delete", tag = "documents", params(CollectionPath),
    request_body = DeleteRequest,
    responses((status = 200, body = DeleteResponse))
)]
pub(super) async fn delete_matching(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(CollectionPath { collection }): Path<CollectionPath>,
    Params(NoParams {}): Params<NoParams>,
    Json(DeleteRequest { filter }): Json<DeleteRequest>,
) -> Result<Response<Body>, Problem> {
    if filter.trim().is_empty() {
        let detail = "the filter is empty: write \"*\" to delete every document";
        return Err(Problem::new(ErrorCode::Filter, detail).at("filter"));
    }
    let deleted = state.service.delete_matching(&request.cx, &collection, &filter).await;
    let deleted =
        deleted.map_err(|incomplete| Problem::from(incomplete.error).after_deleting(incomplete.deleted))?;
    Ok(response::json(StatusCode::OK, &DeleteResponse { deleted }))
}

fn document_response<'a>(
    id: &'a str,
    document: &'a Document,
    schema: &'a Schema,
    vectors: bool,
) -> DocumentResponse<'a> {
    DocumentResponse {
        id,
        seq: document.seq,
        expires_at_ms: document.expires_at_ms,
        fields: DocumentFields::new(document, schema, vectors),
    }
}

fn written(result: PutResult) -> Response<Body> {
    let status = match result.outcome {
        Outcome::Created => StatusCode::CREATED,
        Outcome::Updated | Outcome::Unchanged => StatusCode::OK,
    };
    let etag = precondition::etag(result.seq);
    let mut response = response::json(status, &WriteResponse::from(result));
    response.headers_mut().insert(header::ETAG, etag);
    response
}
