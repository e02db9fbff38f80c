//! OpenAPI schemas of values with limits. The numbers come from [`service::limits`], which the service enforces.

use service::limits;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, Type};

use super::request_context::TIMEOUT_MS_MAX;

/// An integer from `min` to `max`.
fn integer(min: usize, max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max))
}

/// The name of a collection or alias.
pub(super) fn collection_name() -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9_.:-]{1,128}$")).build()
}

/// The id of a document.
pub(super) fn document_id() -> Object {
    let id = ObjectBuilder::new().schema_type(Type::String);
    id.min_length(Some(1)).max_length(Some(limits::ID_BYTES_MAX)).build()
}

/// Hits to return.
pub(super) fn k() -> Object {
    integer(1, limits::K_MAX)
        .default(Some(limits::K_DEFAULT.into()))
        .description(Some("Hits to return. Their documents are limited in total size."))
        .build()
}

/// Hits to return by `/search` and `/kb/search`.
pub(super) fn article_k() -> Object {
    integer(1, limits::K_MAX).default(Some(limits::ARTICLE_K_DEFAULT.into())).build()
}

/// Hits to skip.
pub(super) fn offset() -> Object {
    integer(0, limits::WINDOW_MAX - 1)
        .default(Some(0.into()))
        .description(Some(format!("Hits to skip; at most {} together with `k`.", limits::WINDOW_MAX)))
        .build()
}

/// Candidates that a graph search keeps.
pub(super) fn ef_search() -> Object {
    integer(1, limits::EF_MAX)
        .description(Some(
            "Candidates that the graph search keeps: more are slower and more accurate. The schema's if left out.",
        ))
        .build()
}

/// Names of the fields to return.
pub(super) fn fields() -> Array {
    ArrayBuilder::new()
        .items(ObjectBuilder::new().schema_type(Type::String))
        .max_items(Some(limits::FIELDS_MAX))
        .description(Some("Fields to return; all except vectors if left out."))
        .build()
}

/// Values of a vector.
pub(super) fn dim() -> Object {
    let dim = integer(1, limits::DIM_MAX);
    dim.description(Some("VECTOR: number of values; the model's if left out.")).build()
}

/// Links per node of a graph.
pub(super) fn m() -> Object {
    integer(*limits::M_RANGE.start(), *limits::M_RANGE.end())
        .default(Some(limits::M_DEFAULT.into()))
        .description(Some("VECTOR, hnsw: links per node."))
        .build()
}

/// Candidates that building a graph keeps.
pub(super) fn ef_construction() -> Object {
    integer(*limits::EF_RANGE.start(), *limits::EF_RANGE.end())
        .default(Some(limits::EF_CONSTRUCTION_DEFAULT.into()))
        .description(Some("VECTOR, hnsw: candidates kept while building the graph."))
        .build()
}

/// Candidates that searches of a field keep by default.
pub(super) fn default_ef_search() -> Object {
    integer(*limits::EF_RANGE.start(), *limits::EF_RANGE.end())
        .default(Some(limits::EF_SEARCH_DEFAULT.into()))
        .description(Some("VECTOR, hnsw: candidates kept while searching the graph."))
        .build()
}

/// Documents per page.
pub(super) fn page_limit() -> Object {
    integer(1, limits::PAGE_MAX).default(Some(limits::PAGE_DEFAULT.into())).build()
}

/// A deadline in milliseconds.
pub(super) fn timeout_ms() -> Object {
    integer(1, TIMEOUT_MS_MAX as usize).build()
}
