//! Documents one by one, page by page and by filter.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode, Uri, header},
};

use crate::http::{
    AppState, Problem,
    body::Json,
    json::{
        collections::CountResponse,
        document::{DocumentFields, DocumentRequest, DocumentResponse},
        write::{DeleteRequest, DeleteResponse, DocumentPageResponse, WriteResponse},
    },
    path::Path,
    precondition::{self, Precondition},
    query::Query,
    request_context::RequestContext,
    response,
};
use service::{Document, Error, ErrorKind, Expected, Outcome, PutResult, Schema};

/// Documents of a page that does not say how many.
const LIMIT_DEFAULT: usize = 100;

/// Writes a document in place of any under its id.
#[utoipa::path(
    put, path = "/collections/{c}/documents/{id}", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("id" = String, Path, min_length = 1, max_length = 512, description = "Id of the document"),
        ("If-Match" = Option<String>, Header, description = "Only if it stands as this ETag says; * if it stands at all"),
        ("If-None-Match" = Option<String>, Header, description = "*: only if there is none"),
    ),
    request_body = DocumentRequest,
    responses(
        (status = 200, body = WriteResponse, headers(("ETag" = String, description = "The document's sequence"))),
        (status = 201, body = WriteResponse, headers(("ETag" = String, description = "The document's sequence"))),
    )
)]
pub(super) async fn put(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    Json(shape): Json<DocumentRequest>,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let precondition = Precondition::of(&headers)?;
    let put = shape.into_put(Some(id), expected(precondition)).map_err(|refused| refused.problem)?;
    let result = if precondition == Precondition::Present {
        state.service.replace(&request.cx, &collection, put).await
    } else {
        let mut results = state.service.put(&request.cx, &collection, vec![put]).await?;
        results.pop().expect("one result for one document")
    };
    Ok(written(result.map_err(|error| precondition_failure(precondition, error))?))
}

/// A document.
#[utoipa::path(
    get, path = "/collections/{c}/documents/{id}", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("id" = String, Path, min_length = 1, max_length = 512, description = "Id of the document"),
        ("vectors" = Option<bool>, Query, description = "With its vector fields"),
        ("If-None-Match" = Option<String>, Header, description = "ETag of the state that is known already"),
    ),
    responses(
        (status = 200, body = DocumentResponse, headers(("ETag" = String, description = "The document's sequence"))),
        (status = 304, description = "It stands as it is known already"),
    )
)]
pub(super) async fn get(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let vectors = Query::parse(uri.query(), &["vectors"])?.flag("vectors")?;
    let document = state.service.get(&request.cx, &collection, &id).await?;
    let mut response = if precondition::is_known(&headers, document.seq) {
        response::empty(StatusCode::NOT_MODIFIED)
    } else {
        let schema = state.service.schema(&collection)?;
        response::json_sized(StatusCode::OK, &view(&id, &document, &schema, vectors), 1024)
    };
    response.headers_mut().insert(header::ETAG, precondition::etag(document.seq));
    Ok(response)
}

/// Changes some fields of a document; null removes one.
#[utoipa::path(
    patch, path = "/collections/{c}/documents/{id}", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("id" = String, Path, min_length = 1, max_length = 512, description = "Id of the document"),
        ("If-Match" = Option<String>, Header, description = "Only if it stands as this ETag says; * if it stands at all"),
    ),
    request_body = DocumentRequest,
    responses((status = 200, body = WriteResponse, headers(("ETag" = String, description = "The document's sequence"))))
)]
pub(super) async fn patch(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    Json(shape): Json<DocumentRequest>,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let precondition = update_precondition(&headers)?;
    let patch = shape.into_patch(id, expected(precondition))?;
    let result = state.service.patch(&request.cx, &collection, patch).await;
    Ok(written(result.map_err(|error| precondition_failure(precondition, error))?))
}

/// Takes a document away.
#[utoipa::path(
    delete, path = "/collections/{c}/documents/{id}", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("id" = String, Path, min_length = 1, max_length = 512, description = "Id of the document"),
        ("If-Match" = Option<String>, Header, description = "Only if it stands as this ETag says; * if it stands at all"),
    ),
    responses((status = 204, description = "Gone"))
)]
pub(super) async fn delete(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let precondition = update_precondition(&headers)?;
    let existed = state.service.delete(&request.cx, &collection, &id, expected(precondition)).await;
    if existed.map_err(|error| precondition_failure(precondition, error))? {
        Ok(response::empty(StatusCode::NO_CONTENT))
    } else {
        let detail = format!("there is no document {id:?} in collection {collection:?}");
        Err(precondition_failure(
            precondition,
            Error::new(ErrorKind::NotFound, "document-not-found", detail).at("id"),
        ))
    }
}

/// Documents of a collection, in the order they were first written.
#[utoipa::path(
    get, path = "/collections/{c}/documents", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("filter" = Option<String>, Query, min_length = 1, description = "A filter in RediSearch's syntax"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "Documents a page, up to 1,000; 100, if left out. A page that has 16 MiB ends before"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("vectors" = Option<bool>, Query, description = "With vector fields"),
    ),
    responses((status = 200, body = DocumentPageResponse))
)]
pub(super) async fn scroll(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(collection): Path<String>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(uri.query(), &["filter", "limit", "after", "vectors"])?;
    let limit = query.number("limit")?.unwrap_or(LIMIT_DEFAULT);
    let (after, vectors) = (query.text("after"), query.flag("vectors")?);
    let schema = state.service.schema(&collection)?;
    let scrolled =
        state.service.scroll(&request.cx, &collection, query.word("filter")?, after, limit).await?;
    let ids: Vec<String> =
        scrolled.documents.iter().map(|document| state.service.id_of(&schema, &document.key)).collect();
    let pairs = ids.iter().zip(&scrolled.documents);
    let page = DocumentPageResponse {
        documents: pairs.map(|(id, document)| view(id, document, &schema, vectors)).collect(),
        next: scrolled.next,
    };
    Ok(response::json_sized(StatusCode::OK, &page, 64 + page.documents.len() * 1024))
}

/// How many documents match.
#[utoipa::path(
    get, path = "/collections/{c}/count", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("filter" = Option<String>, Query, min_length = 1, description = "A filter in RediSearch's syntax; all, if left out"),
    ),
    responses((status = 200, body = CountResponse))
)]
pub(super) async fn count(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(collection): Path<String>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(uri.query(), &["filter"])?;
    let count = state.service.count(&request.cx, &collection, query.word("filter")?).await?;
    Ok(response::json(StatusCode::OK, &CountResponse { count }))
}

/// Takes every document away that matches.
#[utoipa::path(
    post, path = "/collections/{c}/delete", tag = "documents",
    params(("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias")),
    request_body = DeleteRequest,
    responses((status = 200, body = DeleteResponse))
)]
pub(super) async fn delete_matching(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(collection): Path<String>,
    uri: Uri,
    Json(DeleteRequest { filter }): Json<DeleteRequest>,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    if filter.trim().is_empty() {
        return Err(Problem::invalid("filter", "the filter is empty: write \"*\" to delete every document")
            .at("filter"));
    }
    let deleted = state.service.delete_matching(&request.cx, &collection, &filter).await?;
    Ok(response::json(StatusCode::OK, &DeleteResponse { deleted }))
}

fn view<'a>(id: &'a str, document: &'a Document, schema: &'a Schema, vectors: bool) -> DocumentResponse<'a> {
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

/// The guard of a change to what stands, of which nothing to stand can be no part.
fn update_precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match Precondition::of(headers)? {
        Precondition::Absent => {
            let detail = "If-None-Match: * makes no sense here: what is changed has to stand";
            Err(Problem::bad_request("header", detail).at("If-None-Match"))
        }
        precondition => Ok(precondition),
    }
}

/// What the guard expects, in the service's words. Which document stands is nothing to expect: whoever is faster
/// leaves another one.
fn expected(precondition: Precondition) -> Expected {
    match precondition {
        Precondition::None | Precondition::Present => Expected::Any,
        Precondition::Absent => Expected::Absent,
        Precondition::Seq(seq) => Expected::Seq(seq),
    }
}

/// A conflict is a failed precondition where the request named what it expects, and so is a document that is missing
/// where any would have done.
fn precondition_failure(precondition: Precondition, error: Error) -> Problem {
    match precondition {
        Precondition::Present if error.code == "document-not-found" => {
            let detail = format!("{}: If-Match: * asks for one", error.message);
            Problem::new(StatusCode::PRECONDITION_FAILED, "document-not-found", detail)
        }
        Precondition::None | Precondition::Present => error.into(),
        Precondition::Absent | Precondition::Seq(_) => Problem::from(error).precondition(),
    }
}
