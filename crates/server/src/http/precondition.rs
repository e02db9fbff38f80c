//! Conditional requests: `If-Match` and `If-None-Match`, with the sequence number of a document as its ETag.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use utoipa::IntoParams;

use super::{Problem, error_code::ErrorCode};
use service::{Error, Expected, Seq};

/// Describes the conditional headers of a read.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes the header, which is_unmodified reads")]
pub(super) struct GetConditions {
    /// ETags of states that the client has: the response is 304 if the document has one of them.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Describes the conditional headers of a write that may create the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes the headers, which Precondition reads")]
pub(super) struct PutConditions {
    /// Write only if the document has this ETag; `*`: only if it exists.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
    /// `*`: write only if the document does not exist.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Describes the conditional headers of a change to an existing document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes the header, which Precondition reads")]
pub(super) struct UpdateConditions {
    /// Change only if the document has this ETag; `*`: only if it exists.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

/// The state of a document that a write requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// None: any state.
    None,
    /// `If-None-Match: *`: the document does not exist.
    Absent,
    /// `If-Match: *`: the document exists.
    Present,
    /// `If-Match: "seq"`: the document has this sequence number.
    Seq(Seq),
}

impl Precondition {
    /// Reads the precondition of a write from its headers.
    pub(super) fn of(headers: &HeaderMap) -> Result<Precondition, Problem> {
        let matches = single(headers, &header::IF_MATCH)?;
        let none = single(headers, &header::IF_NONE_MATCH)?;
        match (matches, none) {
            (None, None) => Ok(Precondition::None),
            (None, Some("*")) => Ok(Precondition::Absent),
            (Some("*"), None) => Ok(Precondition::Present),
            (Some(tag), None) => match parse(tag) {
                Some(seq) => Ok(Precondition::Seq(seq)),
                None => Err(invalid(&header::IF_MATCH, "one ETag of this server, such as \"42\", or *")),
            },
            (None, Some(_)) => Err(invalid(&header::IF_NONE_MATCH, "* on a write")),
            (Some(_), Some(_)) => Err(invalid(&header::IF_MATCH, "sent without If-None-Match")),
        }
    }

    /// Reads the precondition of a change to an existing document, which cannot be its absence.
    pub(super) fn of_update(headers: &HeaderMap) -> Result<Precondition, Problem> {
        match Precondition::of(headers)? {
            Precondition::Absent => {
                let detail =
                    "If-None-Match: * is not possible here: only an existing document can be changed";
                Err(Problem::new(ErrorCode::Header, detail).at("If-None-Match"))
            }
            precondition => Ok(precondition),
        }
    }

    /// The precondition as the service takes it. [`Precondition::Present`] is satisfied by any state of the document,
    /// so that concurrent changes do not fail it.
    pub(super) fn expected(self) -> Expected {
        match self {
            Precondition::None | Precondition::Present => Expected::Any,
            Precondition::Absent => Expected::Absent,
            Precondition::Seq(seq) => Expected::Seq(seq),
        }
    }

    /// The problem for a failed write. With a precondition, a conflict is a failed precondition, and so is a missing
    /// document under `If-Match: *`.
    pub(super) fn problem(self, error: Error) -> Problem {
        match self {
            Precondition::Present if error.code == "document-not-found" => {
                let detail = format!("{}, and If-Match: * requires one", error.message);
                Problem::new(ErrorCode::DocumentNotFound, detail).with_status(StatusCode::PRECONDITION_FAILED)
            }
            Precondition::None | Precondition::Present => error.into(),
            Precondition::Absent | Precondition::Seq(_) => Problem::from(error).into_precondition_failed(),
        }
    }
}

/// Whether `If-None-Match` of a GET lists the ETag of `seq`, so that the client has this state already. Compares weakly,
/// as RFC 9110 requires: a proxy that compresses the response makes its ETag weak.
pub(super) fn is_unmodified(headers: &HeaderMap, seq: Seq) -> bool {
    let lists_seq = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| {
            text.split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || parse(without_weak_prefix(tag)) == Some(seq))
        })
    };
    headers.get_all(header::IF_NONE_MATCH).iter().any(lists_seq)
}

/// A tag without the prefix of weak tags.
fn without_weak_prefix(tag: &str) -> &str {
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
            Err(_) => Err(invalid(name, "visible ASCII")),
        },
        (Some(_), Some(_)) => Err(invalid(name, "sent once")),
    }
}

fn parse(tag: &str) -> Option<Seq> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn invalid(name: &HeaderName, allowed: &str) -> Problem {
    Problem::new(ErrorCode::Header, format!("{name} must be {allowed}")).at(name.as_str())
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
    fn if_none_match_is_compared_weakly() {
        let matches = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            is_unmodified(&HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]), 42)
        };
        for good in ["\"42\"", "W/\"42\"", "\"1\", W/\"42\" , \"7\"", "*"] {
            assert!(matches(good), "{good}");
        }
        for bad in ["42", "W/42", "w/\"42\"", "W/W/\"42\"", "W/ \"42\"", "W/\"4\"", "W/*", ""] {
            assert!(!matches(bad), "{bad}");
        }
    }

    #[test]
    fn rejects_malformed_preconditions() {
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
