//! Searching: `/search`, `/kb/search`, and in a collection.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use serde::de::IgnoredAny;

use crate::http::{
    AppState, Problem,
    body::Json,
    json::search::{
        ArticleSearchResponse, CollectionSearchResponse, MultiSearchResponse, MultiSearchResult,
        SearchRequestBody, SearchResponseBody, SnippetSearchResponse, took_ms,
    },
    path::Path,
    query::{self, Query},
    request_context::RequestContext,
    response,
};
use service::{Answer, FieldKind, Paging, Schema, Search};

const PARAMETERS: &[&str] = &[
    "q",
    "k",
    "filter",
    "collection",
    "ef_search",
    "exact",
    "offset",
    "min_score",
    "allow_partial",
    "timing",
];

/// Hits of a search that does not say how many.
const K_DEFAULT: usize = 5;

/// Bytes a hit takes in JSON, at a guess.
const HIT_BYTES: usize = 1024;

/// Finds documents by the meaning of a text.
#[utoipa::path(
    get, path = "/search", tag = "search",
    params(
        ("q" = String, Query, min_length = 1, description = "What is asked"),
        ("k" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "Hits to return, up to 1,000; 5, if left out"),
        ("filter" = Option<String>, Query, min_length = 1, description = "A filter in RediSearch's syntax, such as @category:{billing}"),
        ("collection" = Option<String>, Query, min_length = 1, description = "Collection or alias; needed where there are several"),
        ("ef_search" = Option<usize>, Query, minimum = 1, maximum = 4096, description = "Breadth of the graph search, up to 4,096"),
        ("exact" = Option<bool>, Query, description = "Compare with every vector"),
        ("offset" = Option<usize>, Query, maximum = 9999, description = "Hits to skip"),
        ("min_score" = Option<f32>, Query, description = "Hits that score less are dropped"),
        ("allow_partial" = Option<bool>, Query, description = "Take the hits of some servers of a Redis Cluster where others do not answer"),
        ("timing" = Option<bool>, Query, description = "Accepted for compatibility; the times of the stages are always told"),
        ("X-Timeout-Ms" = Option<u32>, Header, minimum = 1, maximum = 60_000, description = "Deadline in milliseconds, up to 60,000"),
    ),
    responses((status = 200, body = ArticleSearchResponse, headers(("Server-Timing" = String, description = "Time of each stage"))))
)]
pub(super) async fn search(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    uri: Uri,
) -> Result<Response, Problem> {
    let (text, search) = asked(&uri)?;
    let answer = state.service.search(&request.cx, search).await?;
    let bytes = 512 + answer.hits.len() * HIT_BYTES;
    let response = response::json_sized(StatusCode::OK, &ArticleSearchResponse::new(&text, &answer), bytes);
    Ok(response::with_timing(response, &answer.timing))
}

/// Finds documents by the meaning of a text, with the beginning of each.
#[utoipa::path(
    get, path = "/kb/search", tag = "search",
    params(
        ("q" = String, Query, min_length = 1, description = "What is asked"),
        ("k" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "Hits to return, up to 1,000; 5, if left out"),
        ("filter" = Option<String>, Query, min_length = 1, description = "A filter in RediSearch's syntax, such as @category:{billing}"),
        ("collection" = Option<String>, Query, min_length = 1, description = "Collection or alias; needed where there are several"),
        ("ef_search" = Option<usize>, Query, minimum = 1, maximum = 4096, description = "Breadth of the graph search, up to 4,096"),
        ("exact" = Option<bool>, Query, description = "Compare with every vector"),
        ("offset" = Option<usize>, Query, maximum = 9999, description = "Hits to skip"),
        ("min_score" = Option<f32>, Query, description = "Hits that score less are dropped"),
        ("allow_partial" = Option<bool>, Query, description = "Take the hits of some servers of a Redis Cluster where others do not answer"),
        ("timing" = Option<bool>, Query, description = "Accepted for compatibility; the times of the stages are always told"),
        ("X-Timeout-Ms" = Option<u32>, Header, minimum = 1, maximum = 60_000, description = "Deadline in milliseconds, up to 60,000"),
    ),
    responses((status = 200, body = SnippetSearchResponse, headers(("Server-Timing" = String, description = "Time of each stage"))))
)]
pub(super) async fn kb_search(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    uri: Uri,
) -> Result<Response, Problem> {
    let (text, search) = asked(&uri)?;
    let answer = state.service.search(&request.cx, search).await?;
    let bytes = 512 + answer.hits.len() * HIT_BYTES / 2;
    let response = response::json_sized(StatusCode::OK, &SnippetSearchResponse::new(&text, &answer), bytes);
    Ok(response::with_timing(response, &answer.timing))
}

/// The text that is asked for, and the search.
fn asked(uri: &Uri) -> Result<(String, Search), Problem> {
    let query = Query::parse(uri.query(), PARAMETERS)?;
    let Some(text) = query.text("q").filter(|text| !text.trim().is_empty()) else {
        return Err(query::refuse("q", "the text to search for", query.text("q").unwrap_or_default()));
    };
    query.flag("timing")?;
    let mut search = Search::text(text, query.number("k")?.unwrap_or(K_DEFAULT));
    search.paging = Paging { offset: query.number("offset")?.unwrap_or(0), ..search.paging };
    search.collection = query.word("collection")?.map(str::to_owned);
    search.filter = query.word("filter")?.map(str::to_owned);
    search.ef_search = query.number("ef_search")?;
    search.exact = query.flag("exact")?;
    search.min_score = query.float("min_score")?;
    search.allow_partial = query.flag("allow_partial")?;
    Ok((text.to_owned(), search))
}

/// Finds documents of a collection by text or by vector, or answers several searches at once.
#[utoipa::path(
    post, path = "/collections/{c}/search", tag = "search",
    params(
        ("c" = String, Path, pattern = "^[A-Za-z0-9_.:-]{1,128}$", description = "Collection or alias"),
        ("X-Timeout-Ms" = Option<u32>, Header, minimum = 1, maximum = 60_000, description = "Deadline in milliseconds, up to 60,000"),
    ),
    request_body = SearchRequestBody,
    responses((status = 200, body = CollectionSearchResponse, description = "An answer, or with `searches` their answers"))
)]
pub(super) async fn search_collection(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(collection): Path<String>,
    Json(mut shape): Json<SearchRequestBody>,
) -> Result<Response, Problem> {
    if let Some(searches) = shape.take_searches()? {
        return search_many(&state, &request, &collection, searches).await;
    }
    let search = shape.into_search(&collection)?;
    let schema = state.service.schema(&collection)?;
    let vectors = names_vectors(&schema, &search);
    let answer = state.service.search(&request.cx, search).await?;
    let bytes = 512 + answer.hits.len() * HIT_BYTES;
    let view = CollectionSearchResponse::One(SearchResponseBody::new(&answer, &schema, vectors));
    let response = response::json_sized(StatusCode::OK, &view, bytes);
    Ok(response::with_timing(response, &answer.timing))
}

async fn search_many(
    state: &AppState,
    request: &RequestContext,
    collection: &str,
    shapes: Vec<SearchRequestBody<IgnoredAny>>,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let schema = state.service.schema(collection)?;
    let mut wanted = Vec::with_capacity(shapes.len());
    let mut searches = Vec::with_capacity(shapes.len());
    for shape in shapes {
        wanted.push(match shape.into_search(collection) {
            Ok(search) => {
                let vectors = names_vectors(&schema, &search);
                searches.push(search);
                Ok(vectors)
            }
            Err(problem) => Err(problem),
        });
    }
    let mut answers = state.service.search_many(&request.cx, searches).await?.into_iter();
    let answers: Vec<Result<(Answer, bool), Problem>> = wanted
        .into_iter()
        .map(|wanted| {
            let vectors = wanted?;
            let answer = answers.next().expect("the service answers every search");
            Ok((answer?, vectors))
        })
        .collect();
    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let views = answers.iter().map(|answer| match answer {
        Ok((answer, vectors)) => {
            MultiSearchResult::Answer(SearchResponseBody::new(answer, &schema, *vectors))
        }
        Err(problem) => MultiSearchResult::Error { error: Problem::clone(problem) },
    });
    let view = CollectionSearchResponse::Many(MultiSearchResponse {
        took_ms: took_ms(took_us),
        answers: views.collect(),
    });
    Ok(response::json(StatusCode::OK, &view))
}

/// Whether a vector field is among the fields asked for.
fn names_vectors(schema: &Schema, search: &Search) -> bool {
    let is_vector = |name: &String| {
        schema.fields.iter().any(|field| field.name == *name && matches!(field.kind, FieldKind::Vector(_)))
    };
    search.fields.as_ref().is_some_and(|fields| fields.iter().any(is_vector))
}
