//! Filters: one syntax tree that is evaluated here, and printed and parsed in RediSearch syntax.

mod eval;
mod parse;
mod print;

use crate::{
    binary::printable,
    schema::{FieldKind, Schema},
};

/// Maximum length of a filter's text, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of nested parentheses and negations.
pub(crate) const DEPTH_MAX: usize = 32;
/// Maximum number of tag values and ranges in a filter.
pub(crate) const TERMS_MAX: usize = 1024;

/// A filter over TAG and NUMERIC fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every document.
    All,
    /// A TAG field has one of these values.
    Tag {
        /// Name of the field.
        field: String,
        /// At least one of these.
        values: Vec<Vec<u8>>,
    },
    /// A NUMERIC field is in a range.
    Range {
        /// Name of the field.
        field: String,
        /// Lower end; minus infinity for none.
        min: f64,
        /// Whether the lower end itself is excluded.
        min_exclusive: bool,
        /// Upper end; infinity for none.
        max: f64,
        /// Whether the upper end itself is excluded.
        max_exclusive: bool,
    },
    /// All of these.
    And(Vec<Filter>),
    /// Any of these.
    Or(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
}

/// Why a filter is invalid. Errors of a parsed filter contain the byte position in its text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages describe the fields")]
#[non_exhaustive]
pub enum FilterError {
    /// The text is too long.
    #[error("the filter has {found} bytes, at most {max} are allowed")]
    Length { max: usize, found: usize },
    /// The text ends too early.
    #[error("filter: the text ends at byte {position} where {expected} is expected")]
    End { position: usize, expected: &'static str },
    /// The text has something unexpected.
    #[error("filter: found \"{found}\" at byte {position} where {expected} is expected")]
    Unexpected { position: usize, found: String, expected: &'static str },
    /// The filter contains full-text search terms.
    #[error(
        "filter: \"{found}\" at byte {position} is full-text search, which filters do not support; \
         write @field:{{tag}} or @field:[min max]"
    )]
    FullText { position: usize, found: String },
    /// The filter uses an unsupported part of the query language.
    #[error("filter: {what} at byte {position} is not supported{instead}")]
    Unsupported { position: usize, what: &'static str, instead: &'static str },
    /// The schema has no such field.
    #[error(
        "filter: no field \"{field}\" at byte {position}; fields that a filter can use: \
         {known}"
    )]
    UnknownField { position: usize, field: String, known: String },
    /// The field has another kind.
    #[error(
        "filter: field \"{field}\" at byte {position} is {found}, but {syntax} is for {expected} \
         fields"
    )]
    Kind { position: usize, field: String, expected: &'static str, found: &'static str, syntax: &'static str },
    /// Not a number.
    #[error("filter: \"{found}\" at byte {position} is not a number")]
    Number { position: usize, found: String },
    /// The lower end of a range is above the upper end.
    #[error(
        "filter: the range of \"{field}\" at byte {position} is reversed: {min} is more than \
         {max}"
    )]
    Range { position: usize, field: String, min: f64, max: f64 },
    /// Too many nested parentheses and negations.
    #[error("filter: nested deeper than {max} levels at byte {position}")]
    Depth { position: usize, max: usize },
    /// Too many tag values and ranges.
    #[error("filter: more than {max} tag values and ranges at byte {position}")]
    Terms { position: usize, max: usize },
}

impl Filter {
    /// Parses a filter in RediSearch's query syntax (dialect 2) against `schema`.
    ///
    /// `*` alone matches everything. `@field:{one | two}` matches a TAG field with any of these values; a backslash
    /// escapes the next character, and quotation marks enclose a whole value. `@field:[min max]` matches a NUMERIC
    /// field; `(` before a number excludes it, and `inf`, `+inf`, `-inf` leave an end open. A minus negates the
    /// following part, parts in a row must all match, and `|` between parts means any of them and binds weakest.
    /// Parentheses group.
    pub fn parse(text: &str, schema: &Schema) -> Result<Filter, FilterError> {
        let filter = parse::parse(text, schema)?;
        debug_assert!(filter.check(schema).is_ok(), "a parsed filter passes the check");
        Ok(filter)
    }

    /// Checks a filter that was not parsed: fields exist in `schema` and have the right kind, ranges are ordered
    /// numbers, depth and number of terms are within their limits. Positions in errors are 0.
    pub fn check(&self, schema: &Schema) -> Result<(), FilterError> {
        let mut terms = 0;
        self.check_part(schema, 0, &mut terms)
    }

    /// Checks a part of a filter. `depth` is the number of parentheses and negations that enclose it in the shortest
    /// text of the filter, as the parser counts them.
    fn check_part(&self, schema: &Schema, depth: usize, terms: &mut usize) -> Result<(), FilterError> {
        let position = 0;
        if depth > DEPTH_MAX {
            return Err(FilterError::Depth { position, max: DEPTH_MAX });
        }
        *terms += match self {
            Filter::Tag { values, .. } => values.len(),
            Filter::Range { .. } => 1,
            _ => 0,
        };
        if *terms > TERMS_MAX {
            return Err(FilterError::Terms { position, max: TERMS_MAX });
        }
        match self {
            Filter::All => Ok(()),
            Filter::Tag { field, .. } => check_kind(schema, field, position, ConditionKind::Tag),
            Filter::Range { field, min, max, .. } => {
                check_kind(schema, field, position, ConditionKind::Range)?;
                check_range(field, *min, *max, position)
            }
            Filter::And(parts) | Filter::Or(parts) => parts.iter().try_for_each(|part| {
                let needs_parentheses = match part {
                    Filter::Or(_) => true,
                    Filter::And(_) => matches!(self, Filter::And(_)),
                    _ => false,
                };
                part.check_part(schema, depth + usize::from(needs_parentheses), terms)
            }),
            Filter::Not(part) => part.check_part(schema, depth + 1, terms),
        }
    }
}

/// The kinds of condition on a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConditionKind {
    Tag,
    Range,
}

/// Fails if the schema has no such field, or if the field's kind does not support the condition.
fn check_kind(schema: &Schema, field: &str, position: usize, term: ConditionKind) -> Result<(), FilterError> {
    let Some(kind) = schema.field(field) else {
        return Err(unknown_field(schema, field, position));
    };
    let (fits, expected, syntax) = match term {
        ConditionKind::Tag => (matches!(kind, FieldKind::Tag { .. }), "TAG", "{...}"),
        ConditionKind::Range => (matches!(kind, FieldKind::Numeric), "NUMERIC", "[min max]"),
    };
    if fits {
        return Ok(());
    }
    Err(FilterError::Kind { position, field: field.to_owned(), expected, found: kind.name(), syntax })
}

fn unknown_field(schema: &Schema, field: &str, position: usize) -> FilterError {
    FilterError::UnknownField {
        position,
        field: printable(field.as_bytes()),
        known: schema.field_names(|kind| matches!(kind, FieldKind::Tag { .. } | FieldKind::Numeric)),
    }
}

/// Fails if an end is not a number, or the ends are in the wrong order.
fn check_range(field: &str, min: f64, max: f64, position: usize) -> Result<(), FilterError> {
    if let Some(end) = [min, max].into_iter().find(|end| end.is_nan()) {
        return Err(FilterError::Number { position, found: end.to_string() });
    }
    if min > max {
        return Err(FilterError::Range { position, field: field.to_owned(), min, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
