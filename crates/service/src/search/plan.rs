//! From a request to a plan. Whatever is wrong with a request is reported here, before anything is queued or embedded.

use std::time::Instant;

use engine::{QueryError, check_vector, decode_vector};

use crate::{
    Error, Leg, SearchRequest,
    backend::{SearchPlan, SearchTarget},
    catalog::CollectionHandle,
    error_mapping,
    limits::TEXT_BYTES_MAX,
    sync::Arc,
    timing::us,
};

/// Plans a search of `collection`, which the request names.
pub(crate) fn plan(
    request: &Arc<SearchRequest>,
    collection: Arc<CollectionHandle>,
) -> Result<SearchPlan, Error> {
    request.check_limits()?;
    if let Some(fields) = &request.fields {
        check_fields(fields, &collection)?;
    }
    let [leg] = request.legs.as_slice() else {
        return Err(Error::invalid("legs", "a search needs exactly one of: a text, a vector"));
    };
    let (field, target) = target(leg, request.field.as_deref(), &collection)?;
    let start = Instant::now();
    let filter = request.filter.as_deref().map(|text| collection.parse_filter(text)).transpose()?;
    let parse_us = us(start.elapsed());
    Ok(SearchPlan { request: request.clone(), field, target, filter, parse_us, collection })
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

/// Rejects fields to return that the collection does not have.
fn check_fields(fields: &[String], collection: &CollectionHandle) -> Result<(), Error> {
    let schema = &collection.schema;
    let Some(unknown) = fields.iter().find(|field| schema.field(field).is_none()) else { return Ok(()) };
    let known: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    Err(error_mapping::query(QueryError::FieldNotFound {
        collection: collection.name.clone(),
        field: unknown.clone(),
        known: known.join(", "),
    }))
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
