//! A search as a caller states it.

use crate::limits;

/// What a search looks for. A new kind of search adds a variant here.
#[derive(Clone, Debug, PartialEq)]
pub enum Leg {
    /// A text, embedded by the field's model.
    Text(String),
    /// A vector.
    Vector(Vec<f32>),
    /// A vector as a little-endian blob of the field's element type.
    Blob(Vec<u8>),
}

/// How the hits of several legs become one list.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Fusion {
    /// The order of the only leg.
    #[default]
    Single,
}

/// Which part of the ranked hits is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Hits to skip; with `k` at most [`limits::WINDOW_MAX`].
    pub offset: usize,
    /// Hits to return, 1 to [`limits::K_MAX`].
    pub k: usize,
}

impl Default for Paging {
    fn default() -> Paging {
        Paging { offset: 0, k: limits::K_DEFAULT }
    }
}

/// A search. Interfaces add members here, not parameters to methods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchRequest {
    /// Collection or alias; `None` is the only collection.
    pub collection: Option<String>,
    /// Vector field; `None` is the only one of the collection.
    pub field: Option<String>,
    /// What to look for: exactly one leg for now.
    pub legs: Vec<Leg>,
    /// How the legs are combined.
    pub fusion: Fusion,
    /// A filter in RediSearch's syntax.
    pub filter: Option<String>,
    /// Which part of the ranked hits is returned.
    pub paging: Paging,
    /// Hits with a lower score are left out.
    pub min_score: Option<f32>,
    /// Candidates kept while searching the graph, 1 to [`limits::EF_MAX`]; the schema's, if `None`.
    pub ef_search: Option<usize>,
    /// Compare with every vector instead of searching the graph.
    pub exact: bool,
    /// Fields to return, at most [`limits::FIELDS_MAX`]; all but vectors, if `None`.
    pub fields: Option<Vec<String>>,
    /// Return the hits of the shards of a cluster that answer although others do not.
    pub allow_partial: bool,
}

impl SearchRequest {
    /// A search for a text, with every other option at its default.
    pub fn text(text: impl Into<String>, k: usize) -> SearchRequest {
        SearchRequest {
            legs: vec![Leg::Text(text.into())],
            paging: Paging { offset: 0, k },
            ..SearchRequest::default()
        }
    }
}
