//! Which documents: one tree, evaluated here, printed and parsed in RediSearch's syntax.

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

/// Why a filter is refused, with the position in its text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {}
