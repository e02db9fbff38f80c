//! A search as a caller states it.

use crate::{
    Error,
    limits::{self, EF_MAX, FIELDS_MAX, K_MAX, WINDOW_MAX},
};

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
    /// Checks every limit that holds whatever collection is searched.
    pub(crate) fn check_limits(&self) -> Result<(), Error> {
        let paging = self.paging;
        if !(1..=K_MAX).contains(&paging.k) {
            return Err(Error::invalid("k", format!("k is {}; it must be 1 to {K_MAX}", paging.k)).at("k"));
        }
        if paging.offset.saturating_add(paging.k) > WINDOW_MAX {
            let message = format!(
                "offset {} plus k {} is more than {WINDOW_MAX}, the deepest a search can page",
                paging.offset, paging.k
            );
            return Err(Error::invalid("offset", message).at("offset"));
        }
        if let Some(ef) = self.ef_search.filter(|ef| !(1..=EF_MAX).contains(ef)) {
            let message = format!("ef_search is {ef}; it must be 1 to {EF_MAX}");
            return Err(Error::invalid("ef-search", message).at("ef_search"));
        }
        if let Some(score) = self.min_score.filter(|score| !score.is_finite()) {
            let message = format!("min_score is {score}; it must be finite");
            return Err(Error::invalid("min-score", message).at("min_score"));
        }
        match &self.fields {
            Some(fields) if fields.len() > FIELDS_MAX => Err(too_many_fields(fields.len())),
            _ => Ok(()),
        }
    }
}

/// The error for a search that names too many fields to return.
pub fn too_many_fields(given: usize) -> Error {
    let message =
        format!("{given} fields to return; at most {FIELDS_MAX} are allowed, as many as a document can have");
    Error::invalid("too-many-fields", message).at("fields")
}
