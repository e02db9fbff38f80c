//! API keys: held as digests, compared in constant time.

use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::Problem;
use crate::config::{KnownKey, Role};

/// The header that may carry a key in place of `Authorization`.
pub(super) const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// The keys that open the door.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Vec<KnownKey>,
}

/// What a caller may do. An extension of requests that were let in.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) role: Role,
    /// Collections it is for; all, if there are none.
    pub(super) collections: Vec<String>,
    /// Which of the keys it was.
    pub(super) key: Option<usize>,
}

impl Grant {
    /// Of a door without keys.
    pub(super) fn of_everyone() -> Grant {
        Grant { role: Role::Admin, collections: Vec::new(), key: None }
    }

    /// Whether it reaches a collection by this name.
    pub(super) fn reaches(&self, collection: &str) -> bool {
        self.collections.is_empty() || self.collections.iter().any(|name| name == collection)
    }
}

impl ApiKeys {
    /// A door these keys open.
    pub fn new(keys: &[KnownKey]) -> ApiKeys {
        ApiKeys { keys: keys.to_vec() }
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What the key opens that was given; `None` if it is none of them. Compares with all of them, each in constant
    /// time, whichever it is.
    pub fn grant_of(&self, given: &[u8]) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(given).into();
        let mut found = u32::MAX;
        for (number, known) in (0..).zip(&self.keys) {
            found.conditional_assign(&number, known.digest.ct_eq(&digest));
        }
        usize::try_from(found).ok().filter(|number| *number < self.keys.len())
    }

    /// What a request may do by the key it brings.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Identified, Problem> {
        let Some(given) = given(headers)? else { return Ok(Identified::Nobody) };
        Ok(match self.grant_of(given) {
            Some(number) => {
                let KnownKey { role, collections, .. } = &self.keys[number];
                Identified::By(Grant { role: *role, collections: collections.clone(), key: Some(number) })
            }
            None => Identified::Wrongly,
        })
    }
}

/// Who brought what.
#[derive(Debug)]
pub(super) enum Identified {
    /// No key.
    Nobody,
    /// A key that is none.
    Wrongly,
    /// A key that opens something.
    By(Grant),
}

/// The key a request brings: `Authorization: Bearer KEY`, or `X-API-Key: KEY`, one of them and once.
fn given(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter().chain(headers.get_all(KEY_HEADER));
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let detail = "two keys were sent: send one, as `Authorization: Bearer KEY` or as `X-API-Key: KEY`";
        return Err(Problem::unreadable("key-twice", detail).at("Authorization"));
    }
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(Some(value.as_bytes()));
    }
    let parts = value.as_bytes().split_at_checked("Bearer ".len());
    // Another scheme brings no key of ours: as good as a wrong one.
    Ok(Some(match parts {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"Bearer ") => key.trim_ascii(),
        _ => b"",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ApiKey;
    use axum::http::HeaderValue;

    fn known(key: &str, role: Role) -> KnownKey {
        KnownKey::new(&ApiKey::new(key).unwrap(), role)
    }

    #[test]
    fn either_header_opens_and_nothing_else_does() {
        let keys = ApiKeys::new(&[
            known("first-key-of-the-house", Role::Admin),
            known("other-key-of-the-house", Role::Read),
        ]);
        let role = |headers: &[(HeaderName, &'static str)]| {
            let pairs = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(name, value);
            }
            match keys.identify(&map) {
                Ok(Identified::By(grant)) => Ok(Some(grant.role)),
                Ok(Identified::Nobody) => Ok(None),
                Ok(Identified::Wrongly) => Err("wrong"),
                Err(_) => Err("twice"),
            }
        };
        assert_eq!(role(&[(header::AUTHORIZATION, "Bearer first-key-of-the-house")]), Ok(Some(Role::Admin)));
        assert_eq!(role(&[(header::AUTHORIZATION, "bEARER other-key-of-the-house")]), Ok(Some(Role::Read)));
        assert_eq!(role(&[(KEY_HEADER, "other-key-of-the-house")]), Ok(Some(Role::Read)));
        for (name, value) in [
            (KEY_HEADER, "other-key-of-the-hous"),
            (KEY_HEADER, "Other-key-of-the-house"),
            (KEY_HEADER, ""),
            (header::AUTHORIZATION, "Basic first-key-of-the-house"),
            (header::AUTHORIZATION, "Bearer "),
            (header::AUTHORIZATION, "B"),
        ] {
            assert_eq!(role(&[(name, value)]), Err("wrong"), "{value:?}");
        }
        assert_eq!(role(&[(header::COOKIE, "first-key-of-the-house")]), Ok(None));
        assert_eq!(role(&[]), Ok(None));
        let right = (header::AUTHORIZATION, "Bearer first-key-of-the-house");
        assert_eq!(role(&[right.clone(), right.clone()]), Err("twice"));
        assert_eq!(role(&[right, (KEY_HEADER, "first-key-of-the-house")]), Err("twice"));
        assert_eq!(ApiKeys::default().grant_of(b"first-key-of-the-house"), None);
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let shown = format!("{:?}", ApiKeys::new(&[known("first-key-of-the-house", Role::Admin)]));
        assert!(!shown.contains("first") && !shown.contains("digest"), "{shown}");
    }
}
