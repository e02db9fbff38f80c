//! Who may come in: room, address length, host, origin, key. What is not let in by name is kept out.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Door, HealthOnly, Peer, Problem};

/// Bytes of path and query.
const URL_BYTES_MAX: usize = 8 * 1024;

/// Routes that need no key: the static page, and questions about health.
const OPEN: [&str; 7] = ["/", "/app.js", "/style.css", "/favicon.svg", "/healthz", "/livez", "/readyz"];

/// Questions about health, answered even where there is no room for anything else.
const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Passes a request on, or refuses it.
pub(super) async fn admit(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    match check(&door, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(door: &Door, request: &Request) -> Result<(), Problem> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let is_one_of = |routes: &[&str]| route.is_some_and(|route| routes.contains(&route));
    if request.extensions().get::<HealthOnly>().is_some() && !is_one_of(&HEALTH) {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "connections",
            "no room for more connections, or the server is stopping: try again",
        ));
    }
    if request.uri().path_and_query().is_some_and(|url| url.as_str().len() > URL_BYTES_MAX) {
        let detail = format!("path and query may have {URL_BYTES_MAX} bytes: send a longer search as POST");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "url-length", detail));
    }
    let is_remote = request.extensions().get::<Peer>().is_some();
    let authority = match is_remote {
        true => authority(request.headers(), request.uri(), request.version())?,
        false => None,
    };
    if door.settings.api_keys.is_empty()
        && authority.as_ref().is_some_and(|authority| !is_loopback(authority))
    {
        let detail = "without an API key only loopback names (localhost, 127.0.0.1, [::1]) are served: \
                      use one of these, or start the server with --api-key";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host", detail).at("Host"));
    }
    check_origin(door, request, authority.as_ref())?;
    if !door.settings.api_keys.is_empty()
        && !is_one_of(&OPEN)
        && !door.settings.api_keys.admit(request.headers())
    {
        let detail = "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail));
    }
    Ok(())
}

/// The name the client calls this server by. HTTP/1.0 may leave it out; no browser does.
fn authority(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<Option<Authority>, Problem> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let problem = |detail: &str| Problem::unreadable("host", detail).at("Host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) => Ok(Some(authority)),
            Err(_) => Err(problem("the Host header is not a host name and port")),
        },
        (Some(_), Some(_)) => Err(problem("the Host header is given twice")),
        (None, _) if version < Version::HTTP_11 => Ok(None),
        (None, _) => Err(problem("the Host header is missing")),
    }
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_plain = !authority.as_str().contains('@');
    is_plain
        && (host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

/// A page of another origin may change nothing unless it is on the list, key or no key.
fn check_origin(door: &Door, request: &Request, authority: Option<&Authority>) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    for origin in request.headers().get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        let own = authority.is_some_and(|authority| {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_str()))
        });
        let listed =
            door.settings.cors_origins.iter().any(|listed| listed.as_str().eq_ignore_ascii_case(origin));
        if !own && !listed {
            let detail =
                format!("pages of {origin:?} may change nothing here: allow them with --cors-origin");
            return Err(Problem::new(StatusCode::FORBIDDEN, "origin", detail).at("Origin"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for good in ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.8.9.1", "[::1]:8000", "[::1]"] {
            assert!(is_loopback(&Authority::from_static(good)), "{good}");
        }
        for bad in [
            "example.com",
            "localhost.example.com:8000",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "[::2]:80",
            "localhost@evil.com",
        ] {
            assert!(!is_loopback(&Authority::from_static(bad)), "{bad}");
        }
    }
}
