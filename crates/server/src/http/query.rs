//! The query string, read strictly: nothing unknown, nothing twice, nothing guessed.

use std::{borrow::Cow, fmt::Write};

use super::Problem;

/// Parameters of a request, all of them known.
pub(super) struct Query<'u> {
    pairs: Vec<(Cow<'u, str>, Cow<'u, str>)>,
}

impl<'u> Query<'u> {
    /// Reads `query`, in which only parameters named in `known` may stand.
    pub(super) fn parse(query: Option<&'u str>, known: &[&str]) -> Result<Query<'u>, Problem> {
        let query = query.unwrap_or_default();
        check_encoding(query)?;
        let mut pairs: Vec<(Cow<'u, str>, Cow<'u, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*name) {
                let mut detail = format!("unknown parameter {name:?}: ");
                match known {
                    [] => detail.push_str("none is known here"),
                    _ => write!(detail, "known here are {}", known.join(", ")).expect("writing to a String"),
                }
                return Err(Problem::bad_request("parameter-unknown", detail).at(name));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::bad_request(
                    "parameter-repeated",
                    format!("parameter {name:?} is given twice"),
                )
                .at(name));
            }
            pairs.push((name, value));
        }
        Ok(Query { pairs })
    }

    /// A parameter's text, if it is given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }

    /// A parameter that may be left out, but not left empty.
    pub(super) fn word(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.text(name) {
            Some("") => Err(refuse(name, "not empty", "")),
            word => Ok(word),
        }
    }

    /// A parameter that is a whole number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match digits.then(|| text.parse().ok()).flatten() {
            Some(number) => Ok(Some(number)),
            None => Err(refuse(name, "a whole number", text)),
        }
    }

    /// A parameter that is a finite number.
    pub(super) fn float(&self, name: &str) -> Result<Option<f32>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(refuse(name, "a number", text)),
        }
    }

    /// A parameter that is true or false; false, if it is not given.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            Some("true" | "1") => Ok(true),
            None | Some("false" | "0") => Ok(false),
            Some(text) => Err(refuse(name, "true or false", text)),
        }
    }
}

/// A parameter that is not what it must be.
pub(super) fn refuse(name: &str, allowed: &str, found: &str) -> Problem {
    Problem::bad_request("parameter", format!("{name} must be {allowed}, found {found:?}")).at(name)
}

/// Decoding replaces what is not UTF-8 and passes a lone `%` on: refuse both instead.
fn check_encoding(query: &str) -> Result<(), Problem> {
    if !query.contains('%') {
        return Ok(());
    }
    let refuse = |what: &str| {
        Err(Problem::bad_request("query-string", format!("the query string {what}")).at("query"))
    };
    let mut decoded = Vec::with_capacity(query.len());
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => {
                return refuse(
                    "has a % that two hexadecimal digits do not follow: write %25 for a percent sign",
                );
            }
        }
    }
    if std::str::from_utf8(&decoded).is_err() {
        return refuse("is not UTF-8 once percent-decoded");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["q", "k", "exact", "min_score"];

    fn code(query: &str) -> String {
        let problem = Query::parse(Some(query), KNOWN).err().expect("refused");
        serde_json::to_value(&problem).unwrap()["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn values_are_decoded() {
        let query = Query::parse(Some("q=a+b%20%C3%A9%26&k=05&min_score=-0.5"), KNOWN).ok().unwrap();
        assert_eq!(query.text("q"), Some("a b é&"));
        assert_eq!(query.number::<usize>("k").unwrap(), Some(5));
        assert_eq!(query.float("min_score").unwrap(), Some(-0.5));
        assert!(!query.flag("exact").unwrap());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(code("q=a&limit=3"), "parameter-unknown");
        assert_eq!(code("q=a&q=b"), "parameter-repeated");
        assert_eq!(code("q=a&%71=b"), "parameter-repeated");
        assert_eq!(code("q=100%"), "query-string");
        assert_eq!(code("q=%zz"), "query-string");
        assert_eq!(code("q=%ff"), "query-string");
        assert_eq!(code("q=%ed%a0%80"), "query-string", "a lone surrogate");
        for bad in [
            "k=-1",
            "k=+1",
            "k=",
            "k=1.0",
            "k=99999999999999999999",
            "min_score=nan",
            "min_score=1e99",
            "exact=2",
        ] {
            let query = Query::parse(Some(bad), KNOWN).ok().unwrap();
            let ok = query.number::<usize>("k").is_ok()
                && query.float("min_score").is_ok()
                && query.flag("exact").is_ok();
            assert!(!ok, "{bad}");
        }
    }
}
