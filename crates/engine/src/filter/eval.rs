//! Evaluates filters to ordinals of matching documents.

use roaring::{MultiOps, RoaringBitmap};

use super::Filter;
use crate::{
    attributes::{AttributeIndex, DocumentAttributes},
    schema::Schema,
};

impl Filter {
    /// Ordinals in `all` that match. The filter has passed [`Filter::check`] against the schema of `attributes`.
    pub(crate) fn evaluate(&self, attributes: &AttributeIndex, all: &RoaringBitmap) -> RoaringBitmap {
        match self {
            Filter::All => all.clone(),
            Filter::Tag { field, values } => attributes.with_any_tag(field, values),
            Filter::Range { field, min, min_exclusive, max, max_exclusive } => {
                attributes.in_range(field, (*min, *min_exclusive), (*max, *max_exclusive))
            }
            Filter::And(parts) => {
                let Some((first, rest)) = parts.split_first() else { return all.clone() };
                let mut found = first.evaluate(attributes, all);
                for part in rest {
                    if found.is_empty() {
                        break;
                    }
                    match part {
                        Filter::Not(part) => found -= part.evaluate(attributes, all),
                        part => found &= part.evaluate(attributes, all),
                    }
                }
                found
            }
            Filter::Or(parts) => parts.iter().map(|part| part.evaluate(attributes, all)).union(),
            Filter::Not(part) => all - part.evaluate(attributes, all),
        }
    }

    /// Whether a document with these attributes under `schema` matches.
    pub(crate) fn matches(&self, document: &DocumentAttributes, schema: &Schema) -> bool {
        match self {
            Filter::All => true,
            Filter::Tag { field, values } => document.has_tag(schema, field, values),
            Filter::Range { field, min, min_exclusive, max, max_exclusive } => {
                document.number(schema, field).is_some_and(|number| {
                    let above = number > *min || (number == *min && !min_exclusive);
                    let below = number < *max || (number == *max && !max_exclusive);
                    above && below
                })
            }
            Filter::And(parts) => parts.iter().all(|part| part.matches(document, schema)),
            Filter::Or(parts) => parts.iter().any(|part| part.matches(document, schema)),
            Filter::Not(part) => !part.matches(document, schema),
        }
    }
}
