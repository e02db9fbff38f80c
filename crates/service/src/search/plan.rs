//! From a request to a plan. Whatever is wrong with a request is reported here, before anything is queued or embedded.

use std::time::Instant;

use engine::{QueryError, check_vector, decode_vector};

use crate::{
    Error, Leg, SearchRequest,
    backend::{SearchPlan, SearchTarget},
    catalog::CollectionHandle,
    error_mapping,
    limits::{EF_MAX, FIELDS_MAX, K_MAX, TEXT_BYTES_MAX, WINDOW_MAX},
    sync::Arc,
    timing::us,
};

/// Plans a search of `collection`, which the request names.
pub(crate) fn plan(request: &SearchRequest, collection: Arc<CollectionHandle>) -> Result<SearchPlan, Error> {
    check_limits(request)?;
    check_fields(request, &collection)?;
    let [leg] = request.legs.as_slice() else {
        return Err(Error::invalid("legs", "a search needs exactly one of: a text, a vector"));
    };
    let (field, target) = target(leg, request.field.as_deref(), &collection)?;
    let start = Instant::now();
    let filter = request.filter.as_deref().map(|text| collection.parse_filter(text)).transpose()?;
    let parse_us = us(start.elapsed());
    Ok(SearchPlan {
        field,
        target,
        filter,
        parse_us,
        offset: request.paging.offset,
        k: request.paging.k,
        min_score: request.min_score,
        ef_search: request.ef_search,
        exact: request.exact,
        fields: request.fields.clone(),
        allow_partial: request.allow_partial,
        collection,
    })
}

/// The vector field to search, and what to search it for.
fn target(
    leg: &Leg,
    field: Option<&str>,
    collection: &CollectionHandle,
) -> Result<(String, SearchTarget), Error> {
    let (field, vector) = collection.vector_field(field)?;
    let rejected = |error| error_mapping::vector(field, &error);
    let target = match leg {
        Leg::Text(text) => {
            check_text(text)?;
            let embed = vector.embed.as_ref().ok_or_else(|| {
                Error::invalid(
                    "field-not-embedded",
                    format!("field {field:?} is not computed from text by a model; search it with a vector"),
                )
                .at("text")
            })?;
            SearchTarget::Text { text: text.clone(), model: embed.model.clone() }
        }
        Leg::Vector(values) => {
            check_vector(values, vector.dim, vector.metric).map_err(rejected)?;
            SearchTarget::Vector(values.clone())
        }
        Leg::Blob(blob) => SearchTarget::Vector(
            decode_vector(blob, vector.dim, vector.vector_type, vector.metric).map_err(rejected)?,
        ),
    };
    Ok((field.to_owned(), target))
}

fn check_limits(request: &SearchRequest) -> Result<(), Error> {
    let paging = request.paging;
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
    if let Some(ef) = request.ef_search.filter(|ef| !(1..=EF_MAX).contains(ef)) {
        let message = format!("ef_search is {ef}; it must be 1 to {EF_MAX}");
        return Err(Error::invalid("ef-search", message).at("ef_search"));
    }
    if let Some(score) = request.min_score.filter(|score| !score.is_finite()) {
        let message = format!("min_score is {score}; it must be finite");
        return Err(Error::invalid("min-score", message).at("min_score"));
    }
    Ok(())
}

/// Rejects more fields to return than a document can have, and fields that the collection does not have.
fn check_fields(request: &SearchRequest, collection: &CollectionHandle) -> Result<(), Error> {
    let Some(fields) = &request.fields else { return Ok(()) };
    if fields.len() > FIELDS_MAX {
        return Err(too_many_fields(fields.len()));
    }
    let schema = &collection.schema;
    let Some(unknown) = fields.iter().find(|field| schema.field(field).is_none()) else { return Ok(()) };
    let known: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    Err(error_mapping::query(QueryError::FieldNotFound {
        collection: collection.name.clone(),
        field: unknown.clone(),
        known: known.join(", "),
    }))
}

/// The error for a search that names too many fields to return.
pub fn too_many_fields(given: usize) -> Error {
    let message =
        format!("{given} fields to return; at most {FIELDS_MAX} are allowed, as many as a document can have");
    Error::invalid("too-many-fields", message).at("fields")
}

fn check_text(text: &str) -> Result<(), Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid("text-empty", "the query text is empty").at("text"));
    }
    if text.len() > TEXT_BYTES_MAX {
        let message =
            format!("the query text has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(Error::invalid("text-too-long", message).at("text"));
    }
    Ok(())
}
