//! Request paths and query strings with percent-encoding.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A path under construction.
#[derive(Clone, Debug)]
pub(crate) struct ApiPath {
    text: String,
    has_query: bool,
}

impl ApiPath {
    /// The path of a collection.
    pub(crate) fn collection(name: &str) -> ApiPath {
        ApiPath::new("/collections").segment(name)
    }

    /// A fixed path, such as `/search`.
    pub(crate) fn new(start: &str) -> ApiPath {
        ApiPath { text: start.to_owned(), has_query: false }
    }

    /// Appends a segment.
    pub(crate) fn segment(mut self, segment: &str) -> ApiPath {
        debug_assert!(!self.has_query, "segments come before the query");
        self.text.push('/');
        // As dot segments they would be removed from the path.
        match segment {
            "." => self.text.push_str("%2E"),
            ".." => self.text.push_str("%2E%2E"),
            _ => self.text.extend(utf8_percent_encode(segment, NON_ALPHANUMERIC)),
        }
        self
    }

    /// Appends a query parameter, if there is a value.
    pub(crate) fn query(mut self, name: &str, value: Option<impl ToString>) -> ApiPath {
        if let Some(value) = value {
            self.text.push(if self.has_query { '&' } else { '?' });
            self.has_query = true;
            self.text.push_str(name);
            self.text.push('=');
            self.text.extend(utf8_percent_encode(&value.to_string(), NON_ALPHANUMERIC));
        }
        self
    }
}

impl AsRef<str> for ApiPath {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_segments_and_parameters() {
        let path = ApiPath::collection("a/b").segment("..").query("q", Some("ä&b=c")).query("k", None::<u8>);
        assert_eq!(path.query("x", Some(5)).as_ref(), "/collections/a%2Fb/%2E%2E?q=%C3%A4%26b%3Dc&x=5");
    }
}
