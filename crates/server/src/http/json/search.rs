//! Searches and answers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer, de::IgnoredAny};
use utoipa::ToSchema;

use super::{bounded_vec::BoundedVec, document::DocumentFields, object::ObjectOnly, value::RequestValue};
use crate::http::Problem;
use service::{
    self, Answer, Document, FIELDS_MAX, Fusion, Leg, Paging, SEARCHES_MAX, Schema, Search, Timing, Value,
};

/// Hits of a search that does not say how many.
const K_DEFAULT: usize = 10;

/// Several searches, in which no others are read.
type Searches = BoundedVec<ObjectOnly<SearchRequestBody<IgnoredAny>>, SEARCHES_MAX>;

/// A search by `text` or by `vector`, or several.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(example = json!({"text": "reset my password", "k": 3}))]
#[schema(bound = "")]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequestBody<S = Searches> {
    /// By meaning of a text.
    text: Option<String>,
    /// By a vector: an array of numbers, or `{"base64": "..."}` of a little-endian blob.
    #[schema(value_type = Option<Vec<f32>>)]
    vector: Option<RequestValue>,
    /// Hits to return, up to 1,000; 10, if left out. Their documents may have 32 MiB together, of the fields asked for.
    #[schema(minimum = 1, maximum = 1000)]
    k: Option<usize>,
    /// Hits to skip.
    #[schema(maximum = 9999)]
    offset: Option<usize>,
    /// Hits that score less are dropped.
    min_score: Option<f32>,
    /// A filter in RediSearch's syntax.
    filter: Option<String>,
    /// Breadth of the graph search, up to 4,096.
    #[schema(minimum = 1, maximum = 4096)]
    ef_search: Option<usize>,
    /// Compare with every vector.
    exact: Option<bool>,
    /// Fields to return, up to 1,024; all but vectors, if left out.
    #[schema(value_type = Option<Vec<String>>, max_items = 1024)]
    fields: Option<BoundedVec<String, FIELDS_MAX>>,
    /// The vector field; the only one there is, if left out.
    field: Option<String>,
    /// Take the hits of some servers of a Redis Cluster where others do not answer.
    allow_partial: Option<bool>,
    /// In place of all the others: up to 100 searches, answered in order. Their documents may have 32 MiB together.
    #[schema(value_type = Option<Vec<SearchRequestBody>>, no_recursion, max_items = 100)]
    searches: Option<S>,
}

impl SearchRequestBody {
    /// The searches, if this is several.
    pub(crate) fn take_searches(&mut self) -> Result<Option<Vec<SearchRequestBody<IgnoredAny>>>, Problem> {
        let Some(searches) = self.searches.take() else { return Ok(None) };
        if *self != SearchRequestBody::default() {
            let detail = "beside searches nothing else may stand: put it into each of them";
            return Err(Problem::invalid("search", detail).at("searches"));
        }
        match searches.into_vec() {
            Ok(searches) => Ok(Some(searches.into_iter().map(|ObjectOnly(search)| search).collect())),
            Err(given) => {
                let detail = format!("{given} searches in one request; at most {SEARCHES_MAX} are taken");
                Err(Problem::invalid("too-many-searches", detail).at("searches"))
            }
        }
    }
}

impl<S> SearchRequestBody<S> {
    /// The search, in `collection`.
    pub(crate) fn into_search(self, collection: &str) -> Result<Search, Problem> {
        if self.searches.is_some() {
            return Err(Problem::invalid("search", "searches may not be nested").at("searches"));
        }
        let leg = match (self.text, self.vector) {
            (Some(text), None) => Leg::Text(text),
            (None, Some(RequestValue::Value(Value::Vector(vector)))) => Leg::Vector(vector),
            (None, Some(RequestValue::Value(Value::Bytes(blob)))) => Leg::Blob(blob),
            (None, Some(RequestValue::Value(Value::Tags(tags)))) if tags.is_empty() => {
                Leg::Vector(Vec::new())
            }
            (None, Some(_)) => {
                let detail = r#"vector must be an array of numbers or {"base64": "..."}"#;
                return Err(Problem::invalid("search", detail).at("vector"));
            }
            (None, None) => return Err(Problem::invalid("search", "give text or vector").at("text")),
            (Some(_), Some(_)) => {
                return Err(Problem::invalid("search", "give text or vector, not both").at("text"));
            }
        };
        let fields = self.fields.map(BoundedVec::into_vec).transpose().map_err(service::too_many_fields)?;
        Ok(Search {
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

/// Where an answer's time went, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct TimingResponse {
    /// Waiting for a worker.
    queue_us: u64,
    /// Text to vector, tokenizing included.
    embed_us: u64,
    /// Filter to bitmap.
    filter_us: u64,
    /// In the index.
    search_us: u64,
    /// Reading the documents.
    fetch_us: u64,
    /// From the call to the answer.
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

/// Answer of `/search`.
#[derive(Serialize, ToSchema)]
pub(crate) struct ArticleSearchResponse<'a> {
    query: &'a str,
    took_ms: f64,
    results: Vec<ArticleHit<'a>>,
    /// Whether the text was longer than the model reads; left out, if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// Why servers of a Redis Cluster did not answer, whose hits are missing; left out, if none are.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unanswered: &'a [String],
    timing: TimingResponse,
}

/// A found document, as the article has it.
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

/// Answer of `/kb/search`.
#[derive(Serialize, ToSchema)]
pub(crate) struct SnippetSearchResponse<'a> {
    query: &'a str,
    took_ms: f64,
    results: Vec<SnippetHit<'a>>,
    /// Whether the text was longer than the model reads; left out, if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// Why servers of a Redis Cluster did not answer, whose hits are missing; left out, if none are.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unanswered: &'a [String],
    timing: TimingResponse,
}

/// A found document, with the beginning of its content.
#[derive(Serialize, ToSchema)]
pub(crate) struct SnippetHit<'a> {
    id: &'a str,
    #[schema(value_type = String)]
    title: Cow<'a, str>,
    /// The first 200 characters of the content, with `...` if there are more.
    #[schema(value_type = String)]
    snippet: Snippet<'a>,
    /// Higher is nearer.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f32>,
}

impl<'a> ArticleSearchResponse<'a> {
    pub(crate) fn new(query: &'a str, answer: &'a Answer) -> ArticleSearchResponse<'a> {
        let article = |hit: &'a service::Hit| ArticleHit {
            id: &hit.id,
            title: text(&hit.document, "title"),
            content: text(&hit.document, "content"),
            score: hit.score,
            distance: hit.distance,
        };
        ArticleSearchResponse {
            query,
            took_ms: took_ms(answer.timing.total_us),
            results: answer.hits.iter().map(article).collect(),
            truncated: answer.truncated,
            unanswered: &answer.unanswered,
            timing: answer.timing.into(),
        }
    }
}

impl<'a> SnippetSearchResponse<'a> {
    pub(crate) fn new(query: &'a str, answer: &'a Answer) -> SnippetSearchResponse<'a> {
        let snippet = |hit: &'a service::Hit| SnippetHit {
            id: &hit.id,
            title: text(&hit.document, "title"),
            snippet: Snippet(text(&hit.document, "content")),
            score: hit.score,
            distance: hit.distance,
        };
        SnippetSearchResponse {
            query,
            took_ms: took_ms(answer.timing.total_us),
            results: answer.hits.iter().map(snippet).collect(),
            truncated: answer.truncated,
            unanswered: &answer.unanswered,
            timing: answer.timing.into(),
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

/// Answer of a search in a collection.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchResponseBody<'a> {
    took_ms: f64,
    collection: &'a str,
    results: Vec<HitResponse<'a>>,
    /// Whether the text was longer than the model reads; left out, if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// Why servers of a Redis Cluster did not answer, whose hits are missing; left out, if none are.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unanswered: &'a [String],
    timing: TimingResponse,
}

/// A found document.
#[derive(Serialize, ToSchema)]
pub(crate) struct HitResponse<'a> {
    id: &'a str,
    /// Higher is nearer.
    score: f32,
    /// Distance from the query vector, as Redis defines it.
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f32>,
    #[schema(value_type = Object)]
    fields: DocumentFields<'a>,
}

impl<'a> SearchResponseBody<'a> {
    /// `answer`, with vector fields if `vectors` (they were asked for by name).
    pub(crate) fn new(answer: &'a Answer, schema: &'a Schema, vectors: bool) -> SearchResponseBody<'a> {
        let hit = |hit: &'a service::Hit| HitResponse {
            id: &hit.id,
            score: hit.score,
            distance: hit.distance,
            fields: DocumentFields::new(&hit.document, schema, vectors),
        };
        SearchResponseBody {
            took_ms: took_ms(answer.timing.total_us),
            collection: &answer.collection,
            results: answer.hits.iter().map(hit).collect(),
            truncated: answer.truncated,
            unanswered: &answer.unanswered,
            timing: answer.timing.into(),
        }
    }
}

/// An answer, or with `searches` their answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum CollectionSearchResponse<'a> {
    /// Of one search.
    One(SearchResponseBody<'a>),
    /// Of several.
    Many(MultiSearchResponse<'a>),
}

/// Answers of several searches, in order.
#[derive(Serialize, ToSchema)]
pub(crate) struct MultiSearchResponse<'a> {
    pub(crate) took_ms: f64,
    pub(crate) answers: Vec<MultiSearchResult<'a>>,
}

/// An answer, or why there is none.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum MultiSearchResult<'a> {
    /// An answer.
    Answer(SearchResponseBody<'a>),
    /// Why there is none.
    Error {
        /// The problem.
        error: Problem,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snippets_are_cut_between_characters() {
        let snippet = |text: &str| serde_json::to_string(&Snippet(Cow::Borrowed(text))).unwrap();
        assert_eq!(snippet("short"), "\"short\"");
        let crabs = "\u{1F980}".repeat(200);
        assert_eq!(snippet(&crabs), format!("\"{crabs}\""));
        assert_eq!(snippet(&format!("{crabs}!")), format!("\"{crabs}...\""));
        assert_eq!(snippet(&format!("{crabs}\n\"")), format!("\"{crabs}...\""));
    }

    #[test]
    fn a_search_has_one_leg() {
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
