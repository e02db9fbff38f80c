//! A web origin, as browsers send it.

use std::fmt;

use axum::http::uri::Authority;

/// Scheme, host and port of a web page, such as `https://app.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Takes `http://HOST[:PORT]` or `https://HOST[:PORT]`; `None` for anything else, including `*`.
    pub fn new(origin: &str) -> Option<Origin> {
        let origin = origin.to_ascii_lowercase();
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))?;
        let authority: Authority = host.parse().ok()?;
        let plain = !authority.as_str().contains('@') && !authority.as_str().contains('*');
        let has_port = authority.port_u16().is_some() || authority.as_str() == authority.host();
        (plain && has_port && !authority.host().is_empty()).then_some(Origin(origin))
    }

    /// The value of an `Origin` header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
