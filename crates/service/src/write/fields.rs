//! Validates the fields of a document and encodes their values for storage.

use std::collections::HashSet;

use engine::{FIELDS_MAX, check_vector, encode_vector};

use crate::{
    Error, Field, FieldKind, Fields, Schema, Value, error_mapping,
    limits::{DOCUMENTS_MAX, ID_BYTES_MAX},
};

/// Checks that `id` is a valid document id.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let reason = if id.is_empty() {
        "is empty".to_owned()
    } else if id.len() > ID_BYTES_MAX {
        format!("is {} bytes long", id.len())
    } else if let Some(character) = id.chars().find(|character| character.is_control()) {
        format!("contains the control character {character:?}")
    } else {
        return Ok(());
    };
    let shown: String = id.chars().take(64).collect();
    Err(Error::invalid(
        "id",
        format!("id {shown:?} {reason}; an id must have 1 to {ID_BYTES_MAX} bytes and no control characters"),
    )
    .at("id"))
}

/// Checks the number of documents that a call writes or deletes.
pub(crate) fn check_documents(given: usize) -> Result<(), Error> {
    if given <= DOCUMENTS_MAX {
        return Ok(());
    }
    let message = format!("the call has {given} documents; at most {DOCUMENTS_MAX} are allowed");
    Err(Error::invalid("too-many-documents", message))
}

/// Checks the number of fields that a change names, before any of them is processed.
pub(crate) fn check_count(given: usize) -> Result<(), Error> {
    if given <= FIELDS_MAX {
        return Ok(());
    }
    let message = format!("the change names {given} fields; at most {FIELDS_MAX} are allowed");
    Err(Error::invalid("too-many-fields", message))
}

/// Encodes fields for storage, in the given order.
pub(crate) fn encode(schema: &Schema, fields: &Fields) -> Result<Vec<Field>, Error> {
    let mut names = HashSet::with_capacity(fields.len());
    fields
        .iter()
        .map(|(name, value)| {
            if !names.insert(name.as_str()) {
                return Err(
                    Error::invalid("field-repeated", format!("field {name:?} is given twice")).at(name)
                );
            }
            encode_field(schema, name, value)
        })
        .collect()
}

fn encode_field(schema: &Schema, name: &str, value: &Value) -> Result<Field, Error> {
    let kind = schema.fields.iter().find(|field| field.name == name).map(|field| &field.kind);
    let bytes = match value {
        Value::Bytes(bytes) => bytes.clone(),
        Value::Number(number) => encode_number(name, kind, *number)?,
        Value::Tags(tags) => encode_tags(name, kind, tags)?,
        Value::Vector(values) => match kind {
            Some(FieldKind::Vector(vector)) => {
                check_vector(values, vector.dim, vector.metric)
                    .map_err(|error| error_mapping::vector(name, &error))?;
                encode_vector(values, vector.vector_type)
            }
            other => return Err(wrong_kind(name, other, "a vector", "VECTOR")),
        },
    };
    Ok(Field { name: name.as_bytes().into(), value: bytes.into() })
}

fn encode_number(name: &str, kind: Option<&FieldKind>, number: f64) -> Result<Vec<u8>, Error> {
    if let Some(FieldKind::Vector(_)) = kind {
        return Err(wrong_kind(name, kind, "a number", "NUMERIC"));
    }
    if !number.is_finite() {
        return Err(
            Error::invalid("number", format!("field {name:?} is {number}; a number must be finite")).at(name)
        );
    }
    Ok(decimal(number).into_bytes())
}

/// The shortest decimal form that reads back as the same number.
fn decimal(number: f64) -> String {
    /// Longer numbers are written with an exponent, which is shorter.
    const PLAIN_DIGITS_MAX: usize = 21;
    // Negative zero is written as zero, which it equals.
    let plain = format!("{}", if number == 0.0 { 0.0 } else { number });
    if plain.len() <= PLAIN_DIGITS_MAX { plain } else { format!("{number:e}") }
}

fn encode_tags(name: &str, kind: Option<&FieldKind>, tags: &[String]) -> Result<Vec<u8>, Error> {
    let Some(FieldKind::Tag { separator, .. }) = kind else {
        return Err(wrong_kind(name, kind, "a list of tags", "TAG"));
    };
    for tag in tags {
        let reason = if tag.trim().is_empty() {
            "a tag must not be empty".to_owned()
        } else if tag.as_bytes().contains(separator) {
            format!("a tag must not contain the field's separator {:?}", char::from(*separator))
        } else {
            continue;
        };
        return Err(Error::invalid("tag", format!("field {name:?} has the tag {tag:?}: {reason}")).at(name));
    }
    let tags: Vec<&[u8]> = tags.iter().map(String::as_bytes).collect();
    Ok(tags.join(separator))
}

fn wrong_kind(name: &str, found: Option<&FieldKind>, given: &str, wanted: &str) -> Error {
    let found = match found {
        None => "is not in the collection's schema",
        Some(FieldKind::Text) => "is a TEXT field",
        Some(FieldKind::Tag { .. }) => "is a TAG field",
        Some(FieldKind::Numeric) => "is a NUMERIC field",
        Some(FieldKind::Vector(_)) => "is a VECTOR field",
    };
    Error::invalid(
        "field-kind",
        format!("field {name:?} {found}, but the value is {given}, which needs a {wanted} field"),
    )
    .at(name)
}

/// Whether two documents have the same fields, in any order.
pub(crate) fn same(left: &[Field], right: &[Field]) -> bool {
    fn sorted(fields: &[Field]) -> Vec<&Field> {
        let mut fields: Vec<&Field> = fields.iter().collect();
        fields.sort_unstable_by_key(|field| &field.name);
        fields
    }
    left.len() == right.len() && (left == right || sorted(left) == sorted(right))
}

/// Removes the fields named in `remove` from `fields`, then replaces or adds those in `set`.
pub(crate) fn merge(fields: &[Field], set: Vec<Field>, remove: &[String]) -> Vec<Field> {
    let kept = |field: &&Field| !remove.iter().any(|name| name.as_bytes() == &*field.name);
    let mut merged: Vec<Field> = fields.iter().filter(kept).cloned().collect();
    for field in set {
        match merged.iter_mut().find(|old| old.name == field.name) {
            Some(old) => *old = field,
            None => merged.push(field),
        }
    }
    merged
}

#[cfg(test)]
mod tests;
