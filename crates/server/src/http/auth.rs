//! API keys: held as digests, compared in constant time.

use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::Problem;
use crate::access::{KnownKey, Role};

/// The header that may carry a key in place of `Authorization`.
pub(super) const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// The keys that open the door.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Vec<KnownKey>,
}

/// What a caller may do. An extension of requests that were let in, but of those that anybody may make.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) role: Role,
    /// Collections it is for; all, if there are none.
    pub(super) collections: Vec<String>,
    /// The digest of the key it was.
    pub(super) key: Option<[u8; 32]>,
}

impl Grant {
    /// Of a door without keys.
    pub(super) fn unrestricted() -> Grant {
        Grant { role: Role::Admin, collections: Vec::new(), key: None }
    }

    /// Whether it reaches all collections, whichever there are.
    pub(super) fn covers_all(&self) -> bool {
        self.collections.is_empty()
    }

    /// Whether it reaches a collection by this name.
    pub(super) fn covers(&self, collection: &str) -> bool {
        self.covers_all() || self.collections.iter().any(|name| name == collection)
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
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Identity, Problem> {
        let Some(given) = given(headers)? else { return Ok(Identity::Anonymous) };
        Ok(match self.grant_of(given) {
            Some(number) => {
                let KnownKey { digest, role, collections } = &self.keys[number];
                Identity::By(Grant { role: *role, collections: collections.clone(), key: Some(*digest) })
            }
            None => Identity::UnknownKey,
        })
    }
}

/// Who brought what.
#[derive(Debug)]
pub(super) enum Identity {
    /// No key.
    Anonymous,
    /// A key that is none.
    UnknownKey,
    /// A key that opens something.
    By(Grant),
}

/// The key a request brings: `Authorization: Bearer KEY`, or `X-API-Key: KEY`, one of them and once.
fn given(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter().chain(headers.get_all(KEY_HEADER));
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let detail = "two keys were sent: send one, as `Authorization: Bearer KEY` or as `X-API-Key: KEY`";
        return Err(Problem::bad_request("key-repeated", detail).at("Authorization"));
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
    use crate::access::ApiKey;
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
                Ok(Identity::By(grant)) => Ok(Some(grant.role)),
                Ok(Identity::Anonymous) => Ok(None),
                Ok(Identity::UnknownKey) => Err("wrong"),
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

    /// Whether a key that differs in its first byte is told sooner than one that differs in its last, by Welch's t on
    /// the cropped times of a million calls of each, in turns drawn at random (Reparaz, Balasch and Verbauwhede 2017,
    /// "Dude, is my code constant time?"). Prints, and judges nothing: |t| above 4.5 would be a sign, and other work on
    /// the machine is none of the code's doing.
    #[test]
    #[ignore = "a measurement of a minute: make long-timing"]
    fn how_wrong_a_key_is_takes_no_time_to_tell() {
        use std::{hint::black_box, time::Instant};
        const KEY: &[u8] = b"a-key-of-the-house-0123456789-ab";
        const SAMPLES: usize = 1_000_000;
        let keys = ApiKeys::new(&[known(std::str::from_utf8(KEY).unwrap(), Role::Admin)]);
        let wrong_at = [0, KEY.len() - 1];
        let mut given = KEY.to_vec();
        let mut drawn = 0x9e37_79b9_7f4a_7c15_u64;
        let mut times = [Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES)];
        for _ in 0..2 * SAMPLES {
            drawn ^= drawn << 13;
            drawn ^= drawn >> 7;
            drawn ^= drawn << 17;
            let class = usize::from(drawn & 1 == 1);
            // Both in one place: where a key lies in memory takes time too.
            given.copy_from_slice(KEY);
            given[wrong_at[class]] ^= 1;
            let began = Instant::now();
            black_box(keys.grant_of(black_box(&given)));
            times[class].push(began.elapsed().as_nanos() as f64);
        }
        // What took far longer than most was interrupted.
        let mut all: Vec<f64> = times.concat();
        all.sort_unstable_by(f64::total_cmp);
        let most = all[all.len() * 9 / 10];
        let [first, last] = times.map(|times| {
            let times: Vec<f64> = times.into_iter().filter(|time| *time <= most).collect();
            let count = times.len() as f64;
            let mean = times.iter().sum::<f64>() / count;
            let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean, variance / count)
        });
        let t = (first.0 - last.0) / (first.1 + last.1).sqrt();
        println!("wrong in the first byte {:.1} ns, in the last {:.1} ns, t {t:.2}", first.0, last.0);
    }
}
