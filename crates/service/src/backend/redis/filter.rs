//! Simplifies a filter for RediSearch, whose query language cannot express "everything" or "nothing"
//! inside another filter.

use super::Filter;

/// A simplified filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SimplifiedFilter {
    /// Matches every document.
    MatchAll,
    /// Matches no document: there is nothing to search.
    MatchNone,
    /// Matches some documents.
    Filter(Filter),
}

/// A filter that matches nothing: no index has this field, and RediSearch finds nothing in a field that
/// an index does not have.
pub(super) const MATCH_NONE: &str = "@__none:{x}";

/// Removes the parts of a filter that match everything or nothing.
pub(super) fn simplify(filter: &Filter) -> SimplifiedFilter {
    match filter {
        Filter::All => SimplifiedFilter::MatchAll,
        Filter::Tag { values, .. } if values.is_empty() => SimplifiedFilter::MatchNone,
        Filter::Tag { .. } | Filter::Range { .. } => SimplifiedFilter::Filter(filter.clone()),
        Filter::And(parts) => {
            let mut kept = Vec::with_capacity(parts.len());
            for part in parts {
                match simplify(part) {
                    SimplifiedFilter::MatchAll => {}
                    SimplifiedFilter::MatchNone => return SimplifiedFilter::MatchNone,
                    SimplifiedFilter::Filter(part) => kept.push(part),
                }
            }
            combine(kept, Filter::And, SimplifiedFilter::MatchAll)
        }
        Filter::Or(parts) => {
            let mut kept = Vec::with_capacity(parts.len());
            for part in parts {
                match simplify(part) {
                    SimplifiedFilter::MatchAll => return SimplifiedFilter::MatchAll,
                    SimplifiedFilter::MatchNone => {}
                    SimplifiedFilter::Filter(part) => kept.push(part),
                }
            }
            combine(kept, Filter::Or, SimplifiedFilter::MatchNone)
        }
        Filter::Not(part) => match simplify(part) {
            SimplifiedFilter::MatchAll => SimplifiedFilter::MatchNone,
            SimplifiedFilter::MatchNone => SimplifiedFilter::MatchAll,
            // RediSearch does not parse a double negation.
            SimplifiedFilter::Filter(Filter::Not(part)) => SimplifiedFilter::Filter(*part),
            SimplifiedFilter::Filter(part) => SimplifiedFilter::Filter(Filter::Not(Box::new(part))),
        },
    }
}

fn combine(
    mut parts: Vec<Filter>,
    join: impl FnOnce(Vec<Filter>) -> Filter,
    none: SimplifiedFilter,
) -> SimplifiedFilter {
    match parts.len() {
        0 => none,
        1 => SimplifiedFilter::Filter(parts.remove(0)),
        _ => SimplifiedFilter::Filter(join(parts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(value: &str) -> Filter {
        Filter::Tag { field: "t".to_owned(), values: vec![value.as_bytes().to_vec()] }
    }

    fn not(filter: Filter) -> Filter {
        Filter::Not(Box::new(filter))
    }

    #[test]
    fn removes_match_all_and_match_none_inside_other_filters() {
        let cases = [
            (Filter::And(vec![]), SimplifiedFilter::MatchAll),
            (Filter::Or(vec![]), SimplifiedFilter::MatchNone),
            (Filter::And(vec![Filter::All, tag("a")]), SimplifiedFilter::Filter(tag("a"))),
            (Filter::Or(vec![Filter::All, tag("a")]), SimplifiedFilter::MatchAll),
            (Filter::And(vec![not(Filter::All), tag("a")]), SimplifiedFilter::MatchNone),
            (Filter::Or(vec![not(Filter::All), tag("a")]), SimplifiedFilter::Filter(tag("a"))),
            (not(Filter::And(vec![Filter::All])), SimplifiedFilter::MatchNone),
            (not(not(tag("a"))), SimplifiedFilter::Filter(tag("a"))),
            (
                not(Filter::Or(vec![tag("a"), tag("b")])),
                SimplifiedFilter::Filter(not(Filter::Or(vec![tag("a"), tag("b")]))),
            ),
            (Filter::Tag { field: "t".to_owned(), values: vec![] }, SimplifiedFilter::MatchNone),
        ];
        for (filter, expected) in cases {
            assert_eq!(simplify(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn prints_a_simplified_filter_as_redisearch_syntax() {
        let tag =
            Filter::Tag { field: "my-tags".to_owned(), values: vec![b"a b|c{}".to_vec(), "\u{fc}".into()] };
        let range = Filter::Range {
            field: "n".to_owned(),
            min: -0.5,
            min_exclusive: true,
            max: f64::INFINITY,
            max_exclusive: false,
        };
        let SimplifiedFilter::Filter(filter) = simplify(&Filter::And(vec![tag, Filter::All, not(range)]))
        else {
            panic!()
        };
        assert_eq!(filter.to_string(), "@my\\-tags:{a\\ b\\|c\\{\\}|\u{fc}} (-@n:[(-0.5 +inf])");
    }
}
