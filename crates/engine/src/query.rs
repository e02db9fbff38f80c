//! Queries: what to search for, in which order and how much of it to return; and what a search returns.

use index::VectorError;
use store::{Document, StoreError};

use crate::filter::{Filter, FilterError};

/// Maximum number of hits per page of a search.
pub const K_MAX: usize = 1000;
/// Maximum `ef_search` of a query.
pub const EF_MAX: usize = 4096;
/// Maximum `offset + k` of a search, and maximum number of documents per page of a scroll.
pub const WINDOW_MAX: usize = 10_000;
/// Maximum number of bytes of the documents in one response, counting only the requested fields. No single document
/// is larger.
pub const RESPONSE_BYTES_MAX: usize = 32 << 20;
/// A page of a scroll ends once it holds this many bytes of documents, whatever its limit.
pub const PAGE_BYTES: usize = 16 << 20;

/// A search of one collection.
///
/// [`legs`](Query::legs) find documents, [`order`](Query::order) ranks them, [`page`](Query::page) selects the part
/// of the ranking to return. A new kind of search (by words, or of everything that matches the filter) adds a leg or
/// an order, not a path through the engine.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Collection or alias.
    pub collection: &'a str,
    /// What to search for. Exactly one leg for now; any other number is [`QueryError::LegCount`].
    pub legs: Vec<Leg<'a>>,
    /// How hits are ordered.
    pub order: Order,
    /// Which hits of the ranking are returned.
    pub page: Page,
    /// Which documents are searched; all, if `None`.
    pub filter: Option<&'a Filter>,
    /// Drops hits with a lower score.
    pub min_score: Option<f32>,
    /// Fields to return, all of them in the schema; every field except vectors, if `None`.
    pub fields: Option<&'a [String]>,
}

/// One way in which a query finds documents.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Leg<'a> {
    /// The documents with the nearest vectors.
    Vector(VectorLeg<'a>),
}

/// A k-nearest-neighbour search in one VECTOR field.
#[derive(Clone, Debug)]
pub struct VectorLeg<'a> {
    /// The VECTOR field; may be omitted if the schema has only one.
    pub field: Option<&'a str>,
    /// The query vector.
    pub vector: &'a [f32],
    /// `ef_search` of the graph, 1 to [`EF_MAX`]; the schema's, if `None`.
    pub ef_search: Option<usize>,
    /// Compares with every vector instead of searching the graph.
    pub exact: bool,
}

/// How the hits of a query are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// By score, highest first.
    #[default]
    Score,
}

/// The part of a ranking that a search returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Hits to skip; `offset + k` is at most [`WINDOW_MAX`].
    pub offset: usize,
    /// Maximum number of hits to return, 1 to [`K_MAX`].
    pub k: usize,
}

impl Page {
    /// The first `k` hits.
    pub fn first(k: usize) -> Page {
        Page { offset: 0, k }
    }

    /// Length of the ranking up to the end of this page.
    pub(crate) fn window(self) -> usize {
        self.offset.saturating_add(self.k)
    }
}

impl<'a> Query<'a> {
    /// The vector leg, which must be the query's only leg.
    pub fn vector_leg(&self) -> Result<&VectorLeg<'a>, QueryError> {
        match self.legs.as_slice() {
            [Leg::Vector(leg)] => Ok(leg),
            legs => Err(QueryError::LegCount { found: legs.len() }),
        }
    }
}

/// A found document.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document, with the requested fields.
    pub document: Document,
    /// Which of the document's vectors was the nearest, if a vector leg found it.
    pub passage: Option<u16>,
    /// Distance of that vector from the query vector, as Redis defines it, if a vector leg found the document.
    pub distance: Option<f32>,
    /// Higher is better. For a vector leg, the distance as a [`score`].
    pub score: f32,
}

/// Hits of a search, and the time spent in its stages.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult {
    /// In the query's order.
    pub hits: Vec<Hit>,
    /// Microseconds to evaluate the filter.
    pub filter_us: u64,
    /// Microseconds in the index.
    pub search_us: u64,
    /// Microseconds to read the documents.
    pub fetch_us: u64,
}

/// One page of a scroll.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrollPage {
    /// Whole documents, in the order in which they were first written.
    pub documents: Vec<Document>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u64>,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages describe the fields")]
pub enum QueryError {
    /// No collection or alias has this name.
    #[error("no collection or alias \"{name}\"; there are: {known}")]
    CollectionNotFound { name: String, known: String },
    /// Another version of the collection is active than the query was made for.
    #[error("collection \"{name}\" was switched to another version: retry")]
    VersionMismatch { name: String },
    /// No leg, or several.
    #[error("a query needs exactly one leg, found {found}")]
    LegCount { found: usize },
    /// The schema has no such field.
    #[error("no field \"{field}\" in the schema of collection \"{collection}\"; its fields: {known}")]
    FieldNotFound { collection: String, field: String, known: String },
    /// The field does not hold vectors.
    #[error(
        "field \"{field}\" of collection \"{collection}\" is {found}, a search needs a VECTOR field: {known}"
    )]
    NotAVectorField { collection: String, field: String, found: &'static str, known: String },
    /// The query names no field, and the schema has no VECTOR field or several.
    #[error("name the VECTOR field to search in collection \"{collection}\"; there are: {known}")]
    FieldMissing { collection: String, known: String },
    /// The query vector is invalid for the field.
    #[error("query vector: {source}")]
    Vector {
        #[from]
        source: VectorError,
    },
    /// The filter is invalid for the schema.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A number is out of range.
    #[error("{what} must be {min} to {max}, found {found}")]
    Limit { what: &'static str, min: usize, max: usize, found: usize },
    /// The found documents exceed the byte budget of the response.
    #[error(
        "the documents found have more than {max} bytes together, the most that a response may have: request fewer \
         hits (k), fewer fields (fields), or fewer searches at once (searches)"
    )]
    ResponseSize { max: usize },
    /// The lowest score is not a number.
    #[error("min_score must be a finite number, found {found}")]
    MinScore { found: f32 },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A distance as a score, where higher is nearer: `1 - distance`, or `1 / (1 + distance)` for L2.
pub fn score(metric: index::Metric, distance: f32) -> f32 {
    match metric {
        index::Metric::Cosine | index::Metric::Ip => 1.0 - distance,
        index::Metric::L2 => 1.0 / (1.0 + distance),
    }
}
