//! What a search returns.

use engine::Document;

use crate::{
    backend::{SearchOutcome, SearchPlan},
    call::Call,
    timing::{Timing, us},
};

/// A document that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Its id in the collection.
    pub id: String,
    /// The document with the requested fields.
    pub document: Document,
    /// Higher is nearer.
    pub score: f32,
    /// Distance from the query vector, as Redis defines it, if the document was found by a vector.
    pub distance: Option<f32>,
    /// Number of the passage that was found, if the document was found by a vector.
    pub passage: Option<u16>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResponse {
    /// Name of the collection that was searched.
    pub collection: String,
    /// Best first.
    pub hits: Vec<Hit>,
    /// Whether the query text was longer than the model reads.
    pub truncated: bool,
    /// Why shards of a cluster did not answer, so that their hits are missing: only where the request allows it.
    pub unanswered: Vec<String>,
    /// Where the time went.
    pub timing: Timing,
}

impl SearchResponse {
    /// The response to a search that was executed for `call`.
    pub(super) fn new(plan: &SearchPlan, outcome: SearchOutcome, call: &Call) -> SearchResponse {
        let SearchOutcome { hits, truncated, unanswered, mut timing, finished } = outcome;
        timing.total_us = us(call.elapsed_until(finished));
        timing.filter_us += plan.parse_us;
        let hit = |hit: engine::Hit| Hit {
            id: plan.collection.id(&hit.document.key),
            document: hit.document,
            score: hit.score,
            distance: hit.distance,
            passage: hit.passage,
        };
        SearchResponse {
            collection: plan.collection.name.clone(),
            hits: hits.into_iter().map(hit).collect(),
            truncated,
            unanswered,
            timing,
        }
    }
}
