//! API keys: held as digests, compared in constant time.

use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::ApiKey;

/// The header that may carry a key in place of `Authorization`.
pub(super) const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// The keys that open the door, as SHA-256 digests.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl ApiKeys {
    /// Digests of `keys`.
    pub fn new(keys: &[ApiKey]) -> ApiKeys {
        ApiKeys { digests: keys.iter().map(|key| Sha256::digest(key.reveal()).into()).collect() }
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether `headers` carry one of the keys. Takes as long for a wrong key as for a right one.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(given) = given(headers) else { return false };
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = Choice::from(0);
        for known in &self.digests {
            found |= known.ct_eq(&digest);
        }
        found.into()
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ApiKeys({})", self.digests.len())
    }
}

/// The key a request brings: `Authorization: Bearer KEY`, or `X-API-Key: KEY`.
fn given(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        return scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii());
    }
    headers.get(KEY_HEADER).map(|value| value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn either_header_opens_and_nothing_else_does() {
        let keys = ApiKeys::new(&[
            ApiKey::new("first-key-of-the-house").unwrap(),
            ApiKey::new("other-key-of-the-house").unwrap(),
        ]);
        let admits = |name: HeaderName, value: &'static str| {
            keys.admit(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
        };
        assert!(admits(header::AUTHORIZATION, "Bearer first-key-of-the-house"));
        assert!(admits(header::AUTHORIZATION, "bearer other-key-of-the-house"));
        assert!(admits(KEY_HEADER, "other-key-of-the-house"));
        assert!(!admits(KEY_HEADER, "other-key-of-the-hous"));
        assert!(!admits(header::AUTHORIZATION, "Basic first-key-of-the-house"));
        assert!(!admits(header::AUTHORIZATION, "Bearer "));
        assert!(!admits(header::AUTHORIZATION, "B"));
        assert!(!admits(header::COOKIE, "first-key-of-the-house"));
        assert!(!keys.admit(&HeaderMap::new()));
        assert!(!ApiKeys::default().admit(&HeaderMap::new()));
    }
}
