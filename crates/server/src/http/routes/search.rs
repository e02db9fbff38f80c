//! Searching: `/search` and `/kb/search` of the article, and search in a collection.

use std::{sync::Arc, time::Instant};

use axum::{extract::State, response::Response};
use serde::{Deserialize, de::IgnoredAny};
use service::{FieldKind, Paging, Schema, SearchRequest, SearchResponse, limits};

use crate::http::{
    AppState, Problem,
    body::Json,
    bounds,
    json::search::{
        self, ArticleHit, CollectionSearchResponse, HitResponse, MultiSearchResponse, MultiSearchResult,
        SearchRequestBody, SearchResponseBody, SnippetHit, took_ms,
    },
    json_stream::JsonStream,
    params::{self, Params},
    path::{CollectionPath, Path},
    request_context::{RequestContext, TimeoutParam},
    response,
};

/// Parameters of `/search` and `/kb/search`.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchParams {
    /// The text to search for.
    #[param(min_length = 1)]
    #[serde(deserialize_with = "params::non_blank")]
    q: String,
    /// Hits to return.
    #[param(schema_with = bounds::article_k)]
    #[serde(default, deserialize_with = "params::integer")]
    k: Option<usize>,
    /// A filter in RediSearch syntax, such as `@category:{billing}`.
    #[param(min_length = 1)]
    #[serde(default, deserialize_with = "params::non_empty")]
    filter: Option<String>,
    /// Collection or alias; required if there are several collections.
    #[param(schema_with = bounds::collection_name)]
    #[serde(default, deserialize_with = "params::non_empty")]
    collection: Option<String>,
    /// Candidates that the graph search keeps: more are slower and more accurate.
    #[param(schema_with = bounds::ef_search)]
    #[serde(default, deserialize_with = "params::integer")]
    ef_search: Option<usize>,
    /// Compare with every vector instead of searching the graph.
    #[serde(default, deserialize_with = "params::boolean")]
    exact: bool,
    /// Hits to skip.
    #[param(schema_with = bounds::offset)]
    #[serde(default, deserialize_with = "params::integer")]
    offset: Option<usize>,
    /// Omit hits with a lower score.
    #[serde(default, deserialize_with = "params::number")]
    min_score: Option<f32>,
    /// Return the hits of the shards that answer if other shards of a Redis Cluster do not.
    #[serde(default, deserialize_with = "params::boolean")]
    allow_partial: bool,
    /// Accepted for compatibility: the response always has the times of the stages.
    #[serde(default, rename = "timing", deserialize_with = "params::boolean")]
    _timing: bool,
}

impl SearchParams {
    fn search(&self) -> SearchRequest {
        let k = self.k.unwrap_or(limits::ARTICLE_K_DEFAULT);
        SearchRequest {
            collection: self.collection.clone(),
            filter: self.filter.clone(),
            paging: Paging { offset: self.offset.unwrap_or(0), k },
            min_score: self.min_score,
            ef_search: self.ef_search,
            exact: self.exact,
            allow_partial: self.allow_partial,
            ..SearchRequest::text(&self.q, k)
        }
    }
}

/// Finds documents by the meaning of a text.
#[utoipa::path(
    get, path = "/search", tag = "search", params(SearchParams, TimeoutParam),
    responses((status = 200, body = SearchResponseBody<ArticleHit>,
        headers(("Server-Timing" = String, description = "Duration of each stage"))))
)]
pub(super) async fn search(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    let mut found = state.service.search(&request.cx, params.search()).await?;
    let hits = std::mem::take(&mut found.hits);
    let mut body = JsonStream::default();
    body.object(&SearchResponseBody::of_article(&params.q, &found, ArticleHit::new), "results", |body| {
        body.elements(hits, search::memory, |hit, to| to.serialize(&ArticleHit::new(hit)));
    });
    Ok(response::with_timing(body.into_response(&request)?, &found.timing))
}

/// Finds documents by the meaning of a text and returns the beginning of each.
#[utoipa::path(
    get, path = "/kb/search", tag = "search", params(SearchParams, TimeoutParam),
    responses((status = 200, body = SearchResponseBody<SnippetHit>,
        headers(("Server-Timing" = String, description = "Duration of each stage"))))
)]
pub(super) async fn kb_search(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    let mut found = state.service.search(&request.cx, params.search()).await?;
    let hits = std::mem::take(&mut found.hits);
    let mut body = JsonStream::default();
    body.object(&SearchResponseBody::of_article(&params.q, &found, SnippetHit::new), "results", |body| {
        body.elements(hits, search::memory, |hit, to| to.serialize(&SnippetHit::new(hit)));
    });
    Ok(response::with_timing(body.into_response(&request)?, &found.timing))
}

/// Searches a collection by text or by vector, or performs several searches at once.
#[utoipa::path(
    post, path = "/collections/{c}/search", tag = "search", params(CollectionPath, TimeoutParam),
    request_body = SearchRequestBody,
    responses((status = 200, body = CollectionSearchResponse, description = "The hits, or for `searches` the result of each"))
)]
pub(super) async fn search_collection(
    State(state): State<Arc<AppState>>,
    request: RequestContext,
    Path(CollectionPath { collection }): Path<CollectionPath>,
    Json(mut body): Json<SearchRequestBody>,
) -> Result<Response, Problem> {
    if let Some(searches) = body.take_searches()? {
        return search_many(&state, &request, &collection, searches).await;
    }
    let search = body.into_search(&collection)?;
    let schema = state.service.schema(&collection)?;
    let vectors = requests_vectors(&schema, &search);
    let found = state.service.search(&request.cx, search).await?;
    let timing = found.timing;
    let mut body = JsonStream::default();
    append_found(&mut body, found, &Arc::new(schema), vectors);
    Ok(response::with_timing(body.into_response(&request)?, &timing))
}

/// Appends the result of a search in a collection, with vector fields if `vectors`.
fn append_found(body: &mut JsonStream, mut found: SearchResponse, schema: &Arc<Schema>, vectors: bool) {
    let hits = std::mem::take(&mut found.hits);
    let envelope = SearchResponseBody::of_collection(&found, schema, vectors);
    body.object(&envelope, "results", |body| {
        let schema = Arc::clone(schema);
        body.elements(hits, search::memory, move |hit, to| {
            to.serialize(&HitResponse::new(hit, &schema, vectors))
        });
    });
}

async fn search_many(
    state: &AppState,
    request: &RequestContext,
    collection: &str,
    bodies: Vec<SearchRequestBody<IgnoredAny>>,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let schema = state.service.schema(collection)?;
    let mut parsed = Vec::with_capacity(bodies.len());
    let mut searches = Vec::with_capacity(bodies.len());
    for body in bodies {
        parsed.push(match body.into_search(collection) {
            Ok(search) => {
                let vectors = requests_vectors(&schema, &search);
                searches.push(search);
                Ok(vectors)
            }
            Err(problem) => Err(problem),
        });
    }
    let mut found = state.service.search_many(&request.cx, searches).await?.into_iter();
    let results: Vec<Result<(SearchResponse, bool), Problem>> = parsed
        .into_iter()
        .map(|parsed| {
            let vectors = parsed?;
            let found = found.next().expect("the service returns one result per search");
            Ok((found?, vectors))
        })
        .collect();
    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let schema = Arc::new(schema);
    let mut body = JsonStream::default();
    let envelope = MultiSearchResponse { took_ms: took_ms(took_us), answers: Vec::new() };
    body.object(&envelope, "answers", |body| {
        for (number, result) in results.into_iter().enumerate() {
            if number > 0 {
                body.json(b",".to_vec());
            }
            match result {
                Ok((found, vectors)) => append_found(body, found, &schema, vectors),
                Err(error) => body.value(&MultiSearchResult::Error { error }),
            }
        }
    });
    body.into_response(request)
}

/// Whether a search names a vector field among the fields to return.
fn requests_vectors(schema: &Schema, search: &SearchRequest) -> bool {
    let is_vector = |name: &String| {
        schema.fields.iter().any(|field| field.name == *name && matches!(field.kind, FieldKind::Vector(_)))
    };
    search.fields.as_ref().is_some_and(|fields| fields.iter().any(is_vector))
}
