//! A search and its answer.

use std::time::Duration;

use engine::Document;

/// One way of asking.
#[derive(Clone, Debug, PartialEq)]
pub enum Leg {
    /// By meaning of a text, embedded by the field's model.
    Text(String),
    /// By a vector.
    Vector(Vec<f32>),
    /// By a vector as a little-endian blob of the field's element type.
    Blob(Vec<u8>),
}

/// How several legs become one list. One leg needs none; more await hybrid search.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Fusion {
    /// The one leg's own order.
    #[default]
    Single,
}

/// Which part of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Hits to skip.
    pub offset: usize,
    /// Hits to return.
    pub k: usize,
}

/// A search. Doors add fields here, not parameters to verbs.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Collection or alias; the only one there is, if `None`.
    pub collection: Option<String>,
    /// The vector field; the only one there is, if `None`.
    pub field: Option<String>,
    /// What is asked. Exactly one for now.
    pub legs: Vec<Leg>,
    /// How legs are brought together.
    pub fusion: Fusion,
    /// A filter in RediSearch's syntax.
    pub filter: Option<String>,
    /// Which part of the list.
    pub paging: Paging,
    /// Hits that score less are dropped.
    pub min_score: Option<f32>,
    /// Breadth of the graph search.
    pub ef_search: Option<usize>,
    /// Compare with every vector.
    pub exact: bool,
    /// Fields to return; all but vectors, if `None`.
    pub fields: Option<Vec<String>>,
    /// Whether the hits of some servers of a cluster are better than none, where others do not answer.
    pub allow_partial: bool,
}

impl Search {
    /// A text search with everything else at its default.
    pub fn text(text: impl Into<String>, k: usize) -> Search {
        Search {
            collection: None,
            field: None,
            legs: vec![Leg::Text(text.into())],
            fusion: Fusion::Single,
            filter: None,
            paging: Paging { offset: 0, k },
            min_score: None,
            ef_search: None,
            exact: false,
            fields: None,
            allow_partial: false,
        }
    }
}

/// Where an answer's time went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a worker.
    pub queue_us: u64,
    /// Text to vector, tokenizing included.
    pub embed_us: u64,
    /// Filter to bitmap.
    pub filter_us: u64,
    /// In the index.
    pub search_us: u64,
    /// Reading the documents.
    pub fetch_us: u64,
    /// From the call to the answer.
    pub total_us: u64,
}

impl Timing {
    /// The stages' names in the order they pass, the whole last.
    pub const STAGES: [&'static str; 6] = ["queue", "embed", "filter", "search", "fetch", "total"];

    /// Microseconds of each of [`Timing::STAGES`].
    pub fn us(&self) -> [u64; Timing::STAGES.len()] {
        let Timing { queue_us, embed_us, filter_us, search_us, fetch_us, total_us } = *self;
        [queue_us, embed_us, filter_us, search_us, fetch_us, total_us]
    }

    /// Each stage's name and microseconds, in the same order.
    pub fn stages(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Timing::STAGES.into_iter().zip(self.us())
    }
}

/// Microseconds, as a [`Timing`] counts them.
pub(super) fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A found document.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Its id in the collection.
    pub id: String,
    /// The document with the fields asked for.
    pub document: Document,
    /// Higher is nearer.
    pub score: f32,
    /// Distance from the query vector, as Redis defines it, if the document was found by a vector.
    pub distance: Option<f32>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The collection that answered, by its own name.
    pub collection: String,
    /// Best first.
    pub hits: Vec<Hit>,
    /// Whether the query text was longer than the model reads.
    pub truncated: bool,
    /// Why servers of a cluster did not answer, whose hits are missing: only where the search allowed it.
    pub unanswered: Vec<String>,
    /// Where the time went.
    pub timing: Timing,
}
