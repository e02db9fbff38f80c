//! Which documents: one tree, evaluated here, printed and parsed in RediSearch's syntax.

mod eval;
mod parse;
mod print;

use crate::{
    binary::printable,
    schema::{FieldKind, Schema},
};

/// Bytes of a filter's text.
pub(crate) const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Levels of parentheses and negations, one within the other.
pub(crate) const DEPTH_MAX: usize = 32;
/// Tag values and ranges in one filter.
pub(crate) const TERMS_MAX: usize = 1024;

/// A filter over TAG and NUMERIC fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Everything.
    All,
    /// A TAG field has one of these values.
    Tag {
        /// Field.
        field: String,
        /// Any of these.
        values: Vec<Vec<u8>>,
    },
    /// A NUMERIC field lies in a range.
    Range {
        /// Field.
        field: String,
        /// Lower end; minus infinity for none.
        min: f64,
        /// Whether the lower end itself is out.
        min_exclusive: bool,
        /// Upper end.
        max: f64,
        /// Whether the upper end itself is out.
        max_exclusive: bool,
    },
    /// All of these.
    And(Vec<Filter>),
    /// Any of these.
    Or(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
}

/// Why a filter is refused; for a filter that was parsed, with the byte position in its text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
#[non_exhaustive]
pub enum FilterError {
    /// More text than is read.
    #[error("the filter has {found} bytes, at most {max} are allowed")]
    Length { max: usize, found: usize },
    /// Nothing where something has to stand.
    #[error("filter: the text ends at byte {position} where {expected} is expected")]
    End { position: usize, expected: &'static str },
    /// Something else than has to stand there.
    #[error("filter: found \"{found}\" at byte {position} where {expected} is expected")]
    Unexpected { position: usize, found: String, expected: &'static str },
    /// Words to search for in text.
    #[error(
        "filter: \"{found}\" at byte {position} asks for full text, which filters do not support; \
         write @field:{{tag}} or @field:[min max]"
    )]
    FullText { position: usize, found: String },
    /// A part of the query language that is not supported.
    #[error("filter: {what} at byte {position} is not supported{instead}")]
    Unsupported { position: usize, what: &'static str, instead: &'static str },
    /// A field the schema lacks.
    #[error(
        "filter: no field \"{field}\" at byte {position}; fields of this schema that a filter \
         takes: {known}"
    )]
    UnknownField { position: usize, field: String, known: String },
    /// A field of another kind.
    #[error(
        "filter: field \"{field}\" at byte {position} is {found}, but {syntax} is for {expected} \
         fields"
    )]
    Kind { position: usize, field: String, expected: &'static str, found: &'static str, syntax: &'static str },
    /// No number.
    #[error("filter: \"{found}\" at byte {position} is no number")]
    Number { position: usize, found: String },
    /// A range from above to below.
    #[error(
        "filter: the range of \"{field}\" at byte {position} is upside down: {min} is more than \
         {max}"
    )]
    Range { position: usize, field: String, min: f64, max: f64 },
    /// Parentheses and negations within one another without end.
    #[error("filter: nested deeper than {max} levels at byte {position}")]
    Depth { position: usize, max: usize },
    /// Too many values.
    #[error("filter: more than {max} tag values and ranges at byte {position}")]
    Terms { position: usize, max: usize },
}

impl Filter {
    /// Parses a filter in RediSearch's query syntax (dialect 2) against `schema`.
    ///
    /// `*` alone is everything; `@field:{one | two}` a TAG field with any of these values, where a
    /// backslash takes the next character as it is and quotation marks a whole value;
    /// `@field:[min max]` a NUMERIC field, where `(` before a number leaves that number out and
    /// `inf`, `+inf`, `-inf` leave the end open. A minus before a part negates it, parts in a row
    /// must all hold, `|` between parts lets any of them do and binds weakest; parentheses group.
    pub fn parse(text: &str, schema: &Schema) -> Result<Filter, FilterError> {
        let filter = parse::parse(text, schema)?;
        debug_assert!(filter.check(schema).is_ok(), "what is parsed has been checked");
        Ok(filter)
    }

    /// Checks a filter that was not parsed: its fields stand in `schema` and are of the right kind,
    /// ranges are numbers the right way round, depth and terms are bounded.
    /// Positions in errors are 0.
    pub fn check(&self, schema: &Schema) -> Result<(), FilterError> {
        let mut terms = 0;
        self.check_part(schema, 0, &mut terms)
    }

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
            Filter::And(parts) | Filter::Or(parts) => {
                parts.iter().try_for_each(|part| part.check_part(schema, depth + 1, terms))
            }
            Filter::Not(part) => part.check_part(schema, depth + 1, terms),
        }
    }
}

/// The two things that can be asked of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConditionKind {
    Tag,
    Range,
}

/// Refuses a field the schema lacks, or of another kind than `term` asks of.
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

/// Refuses ends that are no numbers or the wrong way round.
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
