//! Query strings as typed structs, read strictly: unknown, repeated and malformed parameters are errors that name the
//! parameter and what is allowed.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, Unexpected, value::MapDeserializer},
};

use super::{AppState, Problem, error_code::ErrorCode};

/// The parameters of a request.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<AppState>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &Arc<AppState>) -> Result<Params<T>, Problem> {
        parse(parts.uri.query().unwrap_or_default()).map(Params)
    }
}

/// The parameters of an operation that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    check_encoding(query)?;
    let pairs = MapDeserializer::<_, ParamError>::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let name = error.path().to_string();
        match error.into_inner() {
            ParamError::Unknown { name, allowed } => {
                let allowed = match allowed {
                    [] => "this path has none".to_owned(),
                    _ => format!("this path has {}", allowed.join(", ")),
                };
                Problem::new(ErrorCode::ParameterUnknown, format!("unknown parameter {name:?}: {allowed}"))
                    .at(name)
            }
            ParamError::Repeated(name) => {
                Problem::new(ErrorCode::ParameterRepeated, format!("parameter {name:?} is repeated")).at(name)
            }
            ParamError::Missing(name) => {
                Problem::new(ErrorCode::Parameter, format!("parameter {name:?} is missing")).at(name)
            }
            ParamError::Invalid(reason) => {
                Problem::new(ErrorCode::Parameter, format!("parameter {name:?} must be {reason}")).at(name)
            }
        }
    })
}

/// Why parameters cannot be read.
#[derive(Debug)]
enum ParamError {
    Unknown { name: String, allowed: &'static [&'static str] },
    Repeated(&'static str),
    Missing(&'static str),
    Invalid(String),
}

impl fmt::Display for ParamError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

impl std::error::Error for ParamError {}

impl de::Error for ParamError {
    fn custom<T: fmt::Display>(message: T) -> ParamError {
        ParamError::Invalid(message.to_string())
    }

    fn unknown_field(name: &str, allowed: &'static [&'static str]) -> ParamError {
        ParamError::Unknown { name: name.to_owned(), allowed }
    }

    fn duplicate_field(name: &'static str) -> ParamError {
        ParamError::Repeated(name)
    }

    fn missing_field(name: &'static str) -> ParamError {
        ParamError::Missing(name)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> ParamError {
        let found = match found {
            Unexpected::Str(text) => format!("{text:?}"),
            other => other.to_string(),
        };
        ParamError::Invalid(format!("{expected}, found {found}"))
    }

    fn unknown_variant(found: &str, allowed: &'static [&'static str]) -> ParamError {
        ParamError::Invalid(format!("{}, found {found:?}", allowed.join(" or ")))
    }
}

/// A value that `read` takes from the text of a parameter.
fn value<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    allowed: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    read(&text).ok_or_else(|| de::Error::invalid_value(Unexpected::Str(&text), &allowed))
}

/// A whole number, in digits alone.
pub(super) fn integer<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<Option<T>, D::Error> {
    value(deserializer, "a whole number", |text| {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_digits.then(|| text.parse().ok()).flatten().map(Some)
    })
}

/// A finite number.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    value(deserializer, "a number", |text| {
        text.parse().ok().filter(|number: &f32| number.is_finite()).map(Some)
    })
}

/// `true`, `false`, `1` or `0`.
pub(super) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    value(deserializer, "true or false", |text| match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    })
}

/// Any text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// A text that is not empty.
pub(super) fn non_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    value(deserializer, "not empty", |text| (!text.is_empty()).then(|| Some(text.to_owned())))
}

/// A text that is not blank.
pub(super) fn non_blank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    value(deserializer, "a text that is not blank", |text| (!text.trim().is_empty()).then(|| text.to_owned()))
}

/// Rejects what percent-decoding would silently change: invalid UTF-8, and a `%` without two hexadecimal digits.
fn check_encoding(query: &str) -> Result<(), Problem> {
    let problem =
        |what: &str| Problem::new(ErrorCode::QueryString, format!("the query string {what}")).at("query");
    let is_escape =
        |after: &str| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !query.split('%').skip(1).all(is_escape) {
        return Err(problem(
            "has a % that is not followed by two hexadecimal digits: write %25 for a percent sign",
        ));
    }
    match percent_encoding::percent_decode_str(query).decode_utf8() {
        Ok(_) => Ok(()),
        Err(_) => Err(problem("is not UTF-8 after percent-decoding")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[serde(deserialize_with = "non_blank")]
        q: String,
        #[serde(default, deserialize_with = "integer")]
        k: Option<usize>,
        #[serde(default, deserialize_with = "boolean")]
        exact: bool,
        #[serde(default, deserialize_with = "number")]
        min_score: Option<f32>,
        #[serde(default, deserialize_with = "non_empty")]
        filter: Option<String>,
    }

    fn error(query: &str) -> serde_json::Value {
        serde_json::to_value(parse::<Example>(query).expect_err(query)).unwrap()
    }

    #[test]
    fn values_are_decoded() {
        let example: Example = parse("q=a+b%20%C3%A9%26&k=05&min_score=-0.5").ok().unwrap();
        assert_eq!(example.q, "a b é&");
        assert_eq!((example.k, example.min_score), (Some(5), Some(-0.5)));
        assert_eq!((example.exact, example.filter), (false, None));
        assert!(parse::<NoParams>("").is_ok());
    }

    #[test]
    fn rejects_unknown_repeated_and_malformed_parameters() {
        for (query, code) in [
            ("q=a&limit=3", "parameter-unknown"),
            ("q=a&q=b", "parameter-repeated"),
            ("q=a&%71=b", "parameter-repeated"),
            ("q=100%", "query-string"),
            ("q=%zz", "query-string"),
            ("q=%ff", "query-string"),
            // A lone surrogate.
            ("q=%ed%a0%80", "query-string"),
        ] {
            assert_eq!(error(query)["code"], code, "{query}");
        }
        for bad in [
            "k=-1",
            "k=+1",
            "k=",
            "k=1.0",
            "k=99999999999999999999",
            "min_score=nan",
            "min_score=1e99",
            "exact=2",
            "filter=",
            "q=+",
        ] {
            let query = if bad.starts_with('q') { bad.to_owned() } else { format!("q=a&{bad}") };
            let problem = error(&query);
            assert_eq!(problem["code"], "parameter", "{bad}");
            assert_eq!(problem["at"], bad.split_once('=').unwrap().0, "{bad}");
        }
    }

    #[test]
    fn errors_name_the_parameter_and_what_is_allowed() {
        for (query, detail) in [
            ("q=a&limit=3", r#"unknown parameter "limit": this path has q, k, exact, min_score, filter"#),
            ("q=a&k=x", r#"parameter "k" must be a whole number, found "x""#),
            ("k=1", r#"parameter "q" is missing"#),
        ] {
            assert_eq!(error(query)["detail"], detail);
        }
        let problem = parse::<NoParams>("a=b").err().unwrap();
        assert!(serde_json::to_string(&problem).unwrap().contains("this path has none"));
    }
}
