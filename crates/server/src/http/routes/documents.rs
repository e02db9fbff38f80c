//! Documents one by one, page by page and by filter.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode, Uri, header},
};

use crate::http::{
    Door, Problem,
    body::Json,
    call::Call,
    etag::{self, Guard},
    json::{
        document::{DocumentShape, DocumentView, FieldsView},
        info::CountView,
        write::{DeleteShape, DeletedView, PageView, WrittenView},
    },
    path::Path,
    query::Query,
    reply,
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
    request_body = DocumentShape,
    responses(
        (status = 200, body = WrittenView, headers(("ETag" = String, description = "The document's sequence"))),
        (status = 201, body = WrittenView, headers(("ETag" = String, description = "The document's sequence"))),
    )
)]
pub(super) async fn put(
    State(door): State<Arc<Door>>,
    call: Call,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    Json(shape): Json<DocumentShape>,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let guard = Guard::of(&headers)?;
    let put = shape.into_put(Some(id), expected(guard)).map_err(|refused| refused.problem)?;
    let result = if guard == Guard::Present {
        door.service.replace(&call.cx, &collection, put).await
    } else {
        let mut results = door.service.put(&call.cx, &collection, vec![put]).await?;
        results.pop().expect("one result for one document")
    };
    Ok(written(result.map_err(|error| guarded(guard, error))?))
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
        (status = 200, body = DocumentView, headers(("ETag" = String, description = "The document's sequence"))),
        (status = 304, description = "It stands as it is known already"),
    )
)]
pub(super) async fn get(
    State(door): State<Arc<Door>>,
    call: Call,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let vectors = Query::parse(uri.query(), &["vectors"])?.flag("vectors")?;
    let document = door.service.get(&call.cx, &collection, &id).await?;
    let mut response = if etag::is_known(&headers, document.seq) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let schema = door.service.schema(&collection)?;
        reply::json_sized(StatusCode::OK, &view(&id, &document, &schema, vectors), 1024)
    };
    response.headers_mut().insert(header::ETAG, etag::etag(document.seq));
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
    request_body = DocumentShape,
    responses((status = 200, body = WrittenView, headers(("ETag" = String, description = "The document's sequence"))))
)]
pub(super) async fn patch(
    State(door): State<Arc<Door>>,
    call: Call,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    Json(shape): Json<DocumentShape>,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let guard = change_guard(&headers)?;
    let patch = shape.into_patch(id, expected(guard))?;
    let result = door.service.patch(&call.cx, &collection, patch).await;
    Ok(written(result.map_err(|error| guarded(guard, error))?))
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
    State(door): State<Arc<Door>>,
    call: Call,
    Path((collection, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    let guard = change_guard(&headers)?;
    let existed = door.service.delete(&call.cx, &collection, &id, expected(guard)).await;
    if existed.map_err(|error| guarded(guard, error))? {
        Ok(reply::empty(StatusCode::NO_CONTENT))
    } else {
        let detail = format!("there is no document {id:?} in collection {collection:?}");
        Err(guarded(guard, Error::new(ErrorKind::NotFound, "document-not-found", detail).at("id")))
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
    responses((status = 200, body = PageView))
)]
pub(super) async fn scroll(
    State(door): State<Arc<Door>>,
    call: Call,
    Path(collection): Path<String>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(uri.query(), &["filter", "limit", "after", "vectors"])?;
    let limit = query.number("limit")?.unwrap_or(LIMIT_DEFAULT);
    let (after, vectors) = (query.text("after"), query.flag("vectors")?);
    let schema = door.service.schema(&collection)?;
    let scrolled = door.service.scroll(&call.cx, &collection, query.word("filter")?, after, limit).await?;
    let ids: Vec<String> =
        scrolled.documents.iter().map(|document| door.service.id_of(&schema, &document.key)).collect();
    let pairs = ids.iter().zip(&scrolled.documents);
    let page = PageView {
        documents: pairs.map(|(id, document)| view(id, document, &schema, vectors)).collect(),
        next: scrolled.next,
    };
    Ok(reply::json_sized(StatusCode::OK, &page, 64 + page.documents.len() * 1024))
}

/// How many documents match.
#[utoipa::path(
    get, path = "/collections/{c}/count", tag = "documents",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("filter" = Option<String>, Query, min_length = 1, description = "A filter in RediSearch's syntax; all, if left out"),
    ),
    responses((status = 200, body = CountView))
)]
pub(super) async fn count(
    State(door): State<Arc<Door>>,
    call: Call,
    Path(collection): Path<String>,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(uri.query(), &["filter"])?;
    let count = door.service.count(&call.cx, &collection, query.word("filter")?).await?;
    Ok(reply::json(StatusCode::OK, &CountView { count }))
}

/// Takes every document away that matches.
#[utoipa::path(
    post, path = "/collections/{c}/delete", tag = "documents",
    params(("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias")),
    request_body = DeleteShape,
    responses((status = 200, body = DeletedView))
)]
pub(super) async fn delete_matching(
    State(door): State<Arc<Door>>,
    call: Call,
    Path(collection): Path<String>,
    uri: Uri,
    Json(DeleteShape { filter }): Json<DeleteShape>,
) -> Result<Response<Body>, Problem> {
    Query::parse(uri.query(), &[])?;
    if filter.trim().is_empty() {
        return Err(Problem::invalid("filter", "the filter is empty: write \"*\" to delete every document")
            .at("filter"));
    }
    let deleted = door.service.delete_matching(&call.cx, &collection, &filter).await?;
    Ok(reply::json(StatusCode::OK, &DeletedView { deleted }))
}

fn view<'a>(id: &'a str, document: &'a Document, schema: &'a Schema, vectors: bool) -> DocumentView<'a> {
    DocumentView {
        id,
        seq: document.seq,
        expires_at_ms: document.expires_at_ms,
        fields: FieldsView::new(document, schema, vectors),
    }
}

fn written(result: PutResult) -> Response<Body> {
    let status = match result.outcome {
        Outcome::Created => StatusCode::CREATED,
        Outcome::Updated | Outcome::Unchanged => StatusCode::OK,
    };
    let etag = etag::etag(result.seq);
    let mut response = reply::json(status, &WrittenView::from(result));
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// The guard of a change to what stands, of which nothing to stand can be no part.
fn change_guard(headers: &HeaderMap) -> Result<Guard, Problem> {
    match Guard::of(headers)? {
        Guard::Absent => {
            let detail = "If-None-Match: * makes no sense here: what is changed has to stand";
            Err(Problem::unreadable("header", detail).at("If-None-Match"))
        }
        guard => Ok(guard),
    }
}

/// What the guard expects, in the service's words. Which document stands is nothing to expect: whoever is faster
/// leaves another one.
fn expected(guard: Guard) -> Expected {
    match guard {
        Guard::None | Guard::Present => Expected::Any,
        Guard::Absent => Expected::Absent,
        Guard::Seq(seq) => Expected::Seq(seq),
    }
}

/// A conflict is a failed precondition where the request named what it expects, and so is a document that is missing
/// where any would have done.
fn guarded(guard: Guard, error: Error) -> Problem {
    match guard {
        Guard::Present if error.code == "document-not-found" => {
            let detail = format!("{}: If-Match: * asks for one", error.message);
            Problem::new(StatusCode::PRECONDITION_FAILED, "document-not-found", detail)
        }
        Guard::None | Guard::Present => error.into(),
        Guard::Absent | Guard::Seq(_) => Problem::from(error).precondition(),
    }
}
