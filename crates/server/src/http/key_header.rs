//! The API key in the headers of a request.

use axum::http::{HeaderMap, HeaderName, header};

use super::{Problem, error_code::ErrorCode};

/// The header that may carry a key in place of `Authorization`.
pub(super) const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// The key of a request: `Authorization: Bearer KEY` or `X-API-Key: KEY`, exactly one of them.
pub(super) fn key_from_headers(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter().chain(headers.get_all(KEY_HEADER));
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let detail =
            "the request has two API keys: send one, as `Authorization: Bearer KEY` or as `X-API-Key: KEY`";
        return Err(Problem::new(ErrorCode::KeyRepeated, detail).at("Authorization"));
    }
    if !headers.contains_key(header::AUTHORIZATION) {
        return Ok(Some(value.as_bytes()));
    }
    let parts = value.as_bytes().split_at_checked("Bearer ".len());
    // Another scheme cannot carry a key of this server: treated as a wrong key.
    Ok(Some(match parts {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"Bearer ") => key.trim_ascii(),
        _ => b"",
    }))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::access::{AcceptedKey, AccessControl, AccessSettings, ApiKey, ApiKeys, Denial, Role};

    fn accepted(key: &str, role: Role) -> AcceptedKey {
        AcceptedKey::new(&ApiKey::new(key).unwrap(), role)
    }

    #[test]
    fn a_key_is_accepted_in_either_header_and_nowhere_else() {
        let keys = ApiKeys::new(&[
            accepted("first-key-of-the-server", Role::Admin),
            accepted("other-key-of-the-server", Role::Read),
        ]);
        let access = AccessControl::new(AccessSettings { keys, ..AccessSettings::default() });
        let role = |headers: &[(HeaderName, &'static str)]| {
            let pairs = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(name, value);
            }
            let Ok(key) = key_from_headers(&map) else { return Err("repeated") };
            match access.authenticate(key, None) {
                Ok(grant) => Ok(Some(grant.role())),
                Err(Denial::KeyMissing) => Ok(None),
                Err(Denial::KeyUnknown) => Err("wrong"),
                Err(denial) => panic!("{denial:?}"),
            }
        };
        assert_eq!(role(&[(header::AUTHORIZATION, "Bearer first-key-of-the-server")]), Ok(Some(Role::Admin)));
        assert_eq!(role(&[(header::AUTHORIZATION, "bEARER other-key-of-the-server")]), Ok(Some(Role::Read)));
        assert_eq!(role(&[(KEY_HEADER, "other-key-of-the-server")]), Ok(Some(Role::Read)));
        for (name, value) in [
            (KEY_HEADER, "other-key-of-the-serve"),
            (KEY_HEADER, "Other-key-of-the-server"),
            (KEY_HEADER, ""),
            (header::AUTHORIZATION, "Basic first-key-of-the-server"),
            (header::AUTHORIZATION, "Bearer "),
            (header::AUTHORIZATION, "B"),
        ] {
            assert_eq!(role(&[(name, value)]), Err("wrong"), "{value:?}");
        }
        assert_eq!(role(&[(header::COOKIE, "first-key-of-the-server")]), Ok(None));
        assert_eq!(role(&[]), Ok(None));
        let right = (header::AUTHORIZATION, "Bearer first-key-of-the-server");
        assert_eq!(role(&[right.clone(), right.clone()]), Err("repeated"));
        assert_eq!(role(&[right, (KEY_HEADER, "first-key-of-the-server")]), Err("repeated"));
    }
}
