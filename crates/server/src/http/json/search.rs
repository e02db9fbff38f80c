//! Searches and their results.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer, de::IgnoredAny};
use utoipa::ToSchema;

use super::{
    bounded_vec::BoundedVec,
    document::{self, DocumentFields},
    object::ObjectOnly,
    value::RequestValue,
};
use crate::http::{Problem, bounds, error_code::ErrorCode};
use service::{
    Document, Fusion, Hit, Leg, Paging, Schema, SearchRequest, SearchResponse, Timing, Value,
    limits::{FIELDS_MAX, K_DEFAULT, SEARCHES_MAX},
    too_many_fields,
};

/// Several searches, which cannot be nested.
type Searches = BoundedVec<ObjectOnly<SearchRequestBody<IgnoredAny>>, SEARCHES_MAX>;

/// A search by `text` or by `vector`, or several searches.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(example = json!({"text": "reset my password", "k": 3}))]
#[schema(bound = "")]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequestBody<S = Searches> {
    /// Search by the meaning of this text.
    text: Option<String>,
    /// Search by this vector: an array of numbers, or `{"base64": "..."}` with a little-endian blob.
    #[schema(value_type = Option<Vec<f32>>)]
    vector: Option<RequestValue>,
    #[schema(schema_with = bounds::k)]
    k: Option<usize>,
    #[schema(schema_with = bounds::offset)]
    offset: Option<usize>,
    /// Omit hits with a lower score.
    min_score: Option<f32>,
    /// A filter in RediSearch syntax.
    filter: Option<String>,
    #[schema(schema_with = bounds::ef_search)]
    ef_search: Option<usize>,
    /// Compare with every vector instead of searching the graph.
    exact: Option<bool>,
    #[schema(schema_with = bounds::fields)]
    fields: Option<BoundedVec<String, FIELDS_MAX>>,
    /// The vector field to search; the only one if left out.
    field: Option<String>,
    /// Return the hits of the shards that answer if other shards of a Redis Cluster do not.
    allow_partial: Option<bool>,
    /// Several searches, answered in order; cannot be combined with other members. The documents of all results
    /// together are limited in total size.
    #[schema(value_type = Option<Vec<SearchRequestBody>>, no_recursion)]
    searches: Option<S>,
}

impl SearchRequestBody {
    /// The several searches, if the request has them.
    pub(crate) fn take_searches(&mut self) -> Result<Option<Vec<SearchRequestBody<IgnoredAny>>>, Problem> {
        let Some(searches) = self.searches.take() else { return Ok(None) };
        if *self != SearchRequestBody::default() {
            let detail = "`searches` cannot be combined with other members: move them into each search";
            return Err(Problem::new(ErrorCode::Search, detail).at("searches"));
        }
        match searches.into_vec() {
            Ok(searches) => Ok(Some(searches.into_iter().map(|ObjectOnly(search)| search).collect())),
            Err(count) => {
                let detail = format!("{count} searches are more than the {SEARCHES_MAX} allowed per request");
                Err(Problem::new(ErrorCode::TooManySearches, detail).at("searches"))
            }
        }
    }
}

impl<S> SearchRequestBody<S> {
    /// The search in `collection`.
    pub(crate) fn into_search(self, collection: &str) -> Result<SearchRequest, Problem> {
        if self.searches.is_some() {
            return Err(Problem::new(ErrorCode::Search, "`searches` cannot be nested").at("searches"));
        }
        let leg = match (self.text, self.vector) {
            (Some(text), None) => Leg::Text(text),
            (None, Some(RequestValue::Value(Value::Vector(vector)))) => Leg::Vector(vector),
            (None, Some(RequestValue::Value(Value::Bytes(blob)))) => Leg::Blob(blob),
            (None, Some(RequestValue::Value(Value::Tags(tags)))) if tags.is_empty() => {
                Leg::Vector(Vec::new())
            }
            (None, Some(_)) => {
                let detail = r#"`vector` must be an array of numbers or {"base64": "..."}"#;
                return Err(Problem::new(ErrorCode::Search, detail).at("vector"));
            }
            (None, None) => {
                return Err(Problem::new(ErrorCode::Search, "`text` or `vector` is required").at("text"));
            }
            (Some(_), Some(_)) => {
                return Err(
                    Problem::new(ErrorCode::Search, "`text` and `vector` exclude each other").at("text")
                );
            }
        };
        let fields = self.fields.map(BoundedVec::into_vec).transpose().map_err(too_many_fields)?;
        Ok(SearchRequest {
            collection: Some(collection.to_owned()),
            field: self.field,
            legs: vec![leg],
            fusion: Fusion::Single,
            filter: self.filter,
            paging: Paging { offset: self.offset.unwrap_or(0), k: self.k.unwrap_or(K_DEFAULT) },
            min_score: self.min_score,
            ef_search: self.ef_search,
            exact: self.exact.unwrap_or(false),
            fields,
            allow_partial: self.allow_partial.unwrap_or(false),
        })
    }
}

/// Duration of the stages of a search, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct TimingResponse {
    /// Waiting for a worker.
    queue_us: u64,
    /// Embedding the text, including tokenization.
    embed_us: u64,
    /// Evaluating the filter.
    filter_us: u64,
    /// Searching the index.
    search_us: u64,
    /// Reading the documents.
    fetch_us: u64,
    /// From the request to the result.
    total_us: u64,
}

impl From<Timing> for TimingResponse {
    fn from(timing: Timing) -> TimingResponse {
        TimingResponse {
            queue_us: timing.queue_us,
            embed_us: timing.embed_us,
            filter_us: timing.filter_us,
            search_us: timing.search_us,
            fetch_us: timing.fetch_us,
            total_us: timing.total_us,
        }
    }
}

/// Microseconds as milliseconds.
pub(crate) fn took_ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The result of a search. The three search operations differ in the kind of hit, `H`.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchResponseBody<'a, H> {
    /// The text searched for; only in `/search` and `/kb/search`.
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    took_ms: f64,
    /// The collection searched; only in `/collections/{c}/search`.
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<&'a str>,
    /// The hits, best first.
    results: Vec<H>,
    /// Whether the text was longer than the model reads; left out if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// Why shards of a Redis Cluster did not answer, so that their hits are missing; left out if all did.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unanswered: &'a [String],
    timing: TimingResponse,
}

impl<'a, H> SearchResponseBody<'a, H> {
    fn new(found: &'a SearchResponse, hit: impl Fn(&'a Hit) -> H) -> SearchResponseBody<'a, H> {
        SearchResponseBody {
            query: None,
            took_ms: took_ms(found.timing.total_us),
            collection: None,
            results: found.hits.iter().map(hit).collect(),
            truncated: found.truncated,
            unanswered: &found.unanswered,
            timing: found.timing.into(),
        }
    }

    /// The response of `/search` or `/kb/search`.
    pub(crate) fn of_article(
        query: &'a str,
        found: &'a SearchResponse,
        hit: impl Fn(&'a Hit) -> H,
    ) -> SearchResponseBody<'a, H> {
        SearchResponseBody { query: Some(query), ..SearchResponseBody::new(found, hit) }
    }
}

impl<'a> SearchResponseBody<'a, HitResponse<'a>> {
    /// The response of a search in a collection, with vector fields if `vectors`.
    pub(crate) fn of_collection(
        found: &'a SearchResponse,
        schema: &'a Schema,
        vectors: bool,
    ) -> SearchResponseBody<'a, HitResponse<'a>> {
        let hit = |hit: &'a Hit| HitResponse::new(hit, schema, vectors);
        SearchResponseBody { collection: Some(&found.collection), ..SearchResponseBody::new(found, hit) }
    }
}

/// A hit with the fields of the document.
#[derive(Serialize, ToSchema)]
pub(crate) struct HitResponse<'a> {
    id: &'a str,
    /// Higher is nearer.
    score: f32,
    /// The distance from the query vector as Redis defines it.
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f32>,
    #[schema(value_type = Object)]
    fields: DocumentFields<'a>,
}

impl<'a> HitResponse<'a> {
    /// A hit with the vector fields of its document if `vectors`.
    pub(crate) fn new(hit: &'a Hit, schema: &'a Schema, vectors: bool) -> HitResponse<'a> {
        HitResponse {
            id: &hit.id,
            score: hit.score,
            distance: hit.distance,
            fields: DocumentFields::new(&hit.document, schema, vectors),
        }
    }
}

/// Memory of a hit, in bytes.
pub(crate) fn memory(hit: &Hit) -> usize {
    size_of::<Hit>() + hit.id.len() + document::memory(&hit.document)
}

/// A hit with title and content.
#[derive(Serialize, ToSchema)]
pub(crate) struct ArticleHit<'a> {
    id: &'a str,
    #[schema(value_type = String)]
    title: Cow<'a, str>,
    #[schema(value_type = String)]
    content: Cow<'a, str>,
    /// Higher is nearer.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f32>,
}

impl<'a> ArticleHit<'a> {
    pub(crate) fn new(hit: &'a Hit) -> ArticleHit<'a> {
        ArticleHit {
            id: &hit.id,
            title: text(&hit.document, "title"),
            content: text(&hit.document, "content"),
            score: hit.score,
            distance: hit.distance,
        }
    }
}

/// A hit with title and the beginning of the content.
#[derive(Serialize, ToSchema)]
pub(crate) struct SnippetHit<'a> {
    id: &'a str,
    #[schema(value_type = String)]
    title: Cow<'a, str>,
    /// The first 200 characters of the content, followed by `...` if there are more.
    #[schema(value_type = String)]
    snippet: Snippet<'a>,
    /// Higher is nearer.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f32>,
}

impl<'a> SnippetHit<'a> {
    pub(crate) fn new(hit: &'a Hit) -> SnippetHit<'a> {
        SnippetHit {
            id: &hit.id,
            title: text(&hit.document, "title"),
            snippet: Snippet(text(&hit.document, "content")),
            score: hit.score,
            distance: hit.distance,
        }
    }
}

fn text<'a>(document: &'a Document, field: &str) -> Cow<'a, str> {
    String::from_utf8_lossy(document.field(field.as_bytes()).unwrap_or_default())
}

/// Characters of a snippet.
const SNIPPET_CHARS: usize = 200;

struct Snippet<'a>(Cow<'a, str>);

impl Serialize for Snippet<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.char_indices().nth(SNIPPET_CHARS) {
            None => serializer.serialize_str(&self.0),
            Some((end, _)) => serializer.collect_str(&format_args!("{}...", &self.0[..end])),
        }
    }
}

/// The result of one search, or of several if the request has `searches`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes the response, which is a JsonStream")]
pub(crate) enum CollectionSearchResponse<'a> {
    /// Of one search.
    One(SearchResponseBody<'a, HitResponse<'a>>),
    /// Of several searches.
    Many(MultiSearchResponse<'a>),
}

/// The results of several searches, in order.
#[derive(Serialize, ToSchema)]
pub(crate) struct MultiSearchResponse<'a> {
    pub(crate) took_ms: f64,
    pub(crate) answers: Vec<MultiSearchResult<'a>>,
}

/// The result of one of several searches, or why it failed.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum MultiSearchResult<'a> {
    /// The result.
    #[expect(dead_code, reason = "only describes the result, which is a JsonStream")]
    Found(SearchResponseBody<'a, HitResponse<'a>>),
    /// Why it failed.
    Error {
        /// The problem.
        error: Problem,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippets_end_between_characters() {
        let snippet = |text: &str| serde_json::to_string(&Snippet(Cow::Borrowed(text))).unwrap();
        assert_eq!(snippet("short"), "\"short\"");
        let crabs = "\u{1F980}".repeat(200);
        assert_eq!(snippet(&crabs), format!("\"{crabs}\""));
        assert_eq!(snippet(&format!("{crabs}!")), format!("\"{crabs}...\""));
        assert_eq!(snippet(&format!("{crabs}\n\"")), format!("\"{crabs}...\""));
    }

    #[test]
    fn a_search_has_either_text_or_vector() {
        let read = |json: &str| serde_json::from_str::<SearchRequestBody>(json).unwrap().into_search("kb");
        assert_eq!(read(r#"{"text":"t"}"#).unwrap().legs, [Leg::Text("t".to_owned())]);
        assert_eq!(read(r#"{"vector":[1,2]}"#).unwrap().legs, [Leg::Vector(vec![1.0, 2.0])]);
        assert_eq!(
            read(r#"{"vector":{"base64":"AACAPw=="}}"#).unwrap().legs,
            [Leg::Blob(vec![0, 0, 128, 63])]
        );
        assert_eq!(read(r#"{"text":"t","k":3}"#).unwrap().paging, Paging { offset: 0, k: 3 });
        for bad in
            ["{}", r#"{"text":"t","vector":[1]}"#, r#"{"vector":["a"]}"#, r#"{"vector":{"base64":"?"}}"#]
        {
            assert_eq!(read(bad).unwrap_err().status(), 422, "{bad}");
        }
        let unknown = serde_json::from_str::<SearchRequestBody>(r#"{"text":"t","limit":3}"#).unwrap_err();
        assert!(unknown.to_string().contains("unknown field `limit`"));
    }
}
