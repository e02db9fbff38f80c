//! Guards of writes: `If-Match` and `If-None-Match` with a document's sequence as its ETag.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Problem;
use service::Seq;

/// What a request expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Anything.
    None,
    /// `If-None-Match: *`: nothing.
    Absent,
    /// `If-Match: *`: a document, whichever.
    Present,
    /// `If-Match: "seq"`: this one.
    Seq(Seq),
}

impl Precondition {
    /// Reads the guard of a write.
    pub(super) fn of(headers: &HeaderMap) -> Result<Precondition, Problem> {
        let matches = single(headers, &header::IF_MATCH)?;
        let none = single(headers, &header::IF_NONE_MATCH)?;
        match (matches, none) {
            (None, None) => Ok(Precondition::None),
            (None, Some("*")) => Ok(Precondition::Absent),
            (Some("*"), None) => Ok(Precondition::Present),
            (Some(tag), None) => match parse(tag) {
                Some(seq) => Ok(Precondition::Seq(seq)),
                None => {
                    Err(refuse(&header::IF_MATCH, "one ETag as this server gave it, such as \"42\", or *"))
                }
            },
            (None, Some(_)) => Err(refuse(&header::IF_NONE_MATCH, "* on a write")),
            (Some(_), Some(_)) => Err(refuse(&header::IF_MATCH, "given alone, without If-None-Match")),
        }
    }
}

/// Whether a reader has this state already (`If-None-Match` on a GET). Compared weakly, as RFC 9110 has it: what lies
/// between may have zipped the answer and made its ETag a weak one.
pub(super) fn is_known(headers: &HeaderMap, seq: Seq) -> bool {
    let known = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| {
            text.split(',').map(str::trim).any(|tag| tag == "*" || parse(strong(tag)) == Some(seq))
        })
    };
    headers.get_all(header::IF_NONE_MATCH).iter().any(known)
}

/// A tag without the mark of a weak one.
fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// A document's ETag.
pub(super) fn etag(seq: Seq) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{seq}\"")).expect("digits in quotes")
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(refuse(name, "visible ASCII")),
        },
        (Some(_), Some(_)) => Err(refuse(name, "given once")),
    }
}

fn parse(tag: &str) -> Option<Seq> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn refuse(name: &HeaderName, allowed: &str) -> Problem {
    Problem::bad_request("header", format!("{name} must be {allowed}")).at(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn precondition(pairs: &[(HeaderName, &'static str)]) -> Result<Precondition, Problem> {
        Precondition::of(
            &pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect(),
        )
    }

    #[test]
    fn what_is_known_is_compared_weakly() {
        let known = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            is_known(&HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]), 42)
        };
        for good in ["\"42\"", "W/\"42\"", "\"1\", W/\"42\" , \"7\"", "*"] {
            assert!(known(good), "{good}");
        }
        for bad in ["42", "W/42", "w/\"42\"", "W/W/\"42\"", "W/ \"42\"", "W/\"4\"", "W/*", ""] {
            assert!(!known(bad), "{bad}");
        }
    }

    #[test]
    fn guards_are_read_strictly() {
        use header::{IF_MATCH, IF_NONE_MATCH};
        assert_eq!(precondition(&[]), Ok(Precondition::None));
        assert_eq!(precondition(&[(IF_MATCH, "\"42\"")]), Ok(Precondition::Seq(42)));
        assert_eq!(precondition(&[(IF_MATCH, "*")]), Ok(Precondition::Present));
        assert_eq!(precondition(&[(IF_NONE_MATCH, "*")]), Ok(Precondition::Absent));
        for bad in ["42", "W/\"42\"", "\"+42\"", "\"\"", "\"4\", \"5\"", "\"99999999999999999999\""] {
            assert!(precondition(&[(IF_MATCH, bad)]).is_err(), "{bad}");
        }
        assert!(precondition(&[(IF_NONE_MATCH, "\"42\"")]).is_err());
        assert!(precondition(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]).is_err());
    }
}
