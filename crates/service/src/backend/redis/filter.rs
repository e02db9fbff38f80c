//! A filter for RediSearch: simplified, for it has no text for everything or nothing inside another
//! filter.

use super::Filter;

/// What is left of a filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Simple {
    /// It lets everything through.
    Everything,
    /// It lets nothing through: there is nothing to ask.
    Nothing,
    /// It has to be asked.
    Some(Filter),
}

/// A filter that no document passes: no index has this field, and RediSearch finds nothing in a
/// field an index does not have.
pub(super) const NOBODY: &str = "@__nobody:{x}";

/// Takes out of a filter what needs no asking.
pub(super) fn simplify(filter: &Filter) -> Simple {
    match filter {
        Filter::All => Simple::Everything,
        Filter::Tag { values, .. } if values.is_empty() => Simple::Nothing,
        Filter::Tag { .. } | Filter::Range { .. } => Simple::Some(filter.clone()),
        Filter::And(parts) => {
            let mut left = Vec::with_capacity(parts.len());
            for part in parts {
                match simplify(part) {
                    Simple::Everything => {}
                    Simple::Nothing => return Simple::Nothing,
                    Simple::Some(part) => left.push(part),
                }
            }
            joined(left, Filter::And, Simple::Everything)
        }
        Filter::Or(parts) => {
            let mut left = Vec::with_capacity(parts.len());
            for part in parts {
                match simplify(part) {
                    Simple::Everything => return Simple::Everything,
                    Simple::Nothing => {}
                    Simple::Some(part) => left.push(part),
                }
            }
            joined(left, Filter::Or, Simple::Nothing)
        }
        Filter::Not(part) => match simplify(part) {
            Simple::Everything => Simple::Nothing,
            Simple::Nothing => Simple::Everything,
            // Twice not is once: RediSearch reads no minus after a minus.
            Simple::Some(Filter::Not(part)) => Simple::Some(*part),
            Simple::Some(part) => Simple::Some(Filter::Not(Box::new(part))),
        },
    }
}

fn joined(mut parts: Vec<Filter>, join: impl FnOnce(Vec<Filter>) -> Filter, none: Simple) -> Simple {
    match parts.len() {
        0 => none,
        1 => Simple::Some(parts.remove(0)),
        _ => Simple::Some(join(parts)),
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
    fn everything_and_nothing_never_stand_inside() {
        let cases = [
            (Filter::And(vec![]), Simple::Everything),
            (Filter::Or(vec![]), Simple::Nothing),
            (Filter::And(vec![Filter::All, tag("a")]), Simple::Some(tag("a"))),
            (Filter::Or(vec![Filter::All, tag("a")]), Simple::Everything),
            (Filter::And(vec![not(Filter::All), tag("a")]), Simple::Nothing),
            (Filter::Or(vec![not(Filter::All), tag("a")]), Simple::Some(tag("a"))),
            (not(Filter::And(vec![Filter::All])), Simple::Nothing),
            (not(not(tag("a"))), Simple::Some(tag("a"))),
            (
                not(Filter::Or(vec![tag("a"), tag("b")])),
                Simple::Some(not(Filter::Or(vec![tag("a"), tag("b")]))),
            ),
            (Filter::Tag { field: "t".to_owned(), values: vec![] }, Simple::Nothing),
        ];
        for (filter, expected) in cases {
            assert_eq!(simplify(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn what_is_left_is_printed_for_redisearch() {
        let tag =
            Filter::Tag { field: "my-tags".to_owned(), values: vec![b"a b|c{}".to_vec(), "\u{fc}".into()] };
        let range = Filter::Range {
            field: "n".to_owned(),
            min: -0.5,
            min_exclusive: true,
            max: f64::INFINITY,
            max_exclusive: false,
        };
        let Simple::Some(filter) = simplify(&Filter::And(vec![tag, Filter::All, not(range)])) else {
            panic!()
        };
        assert_eq!(filter.to_string(), "@my\\-tags:{a\\ b\\|c\\{\\}|\u{fc}} (-@n:[(-0.5 +inf])");
    }
}
