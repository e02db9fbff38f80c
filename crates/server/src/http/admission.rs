//! Who may come in: room, address length, host, origin, key. What is not let in by name is kept out.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    AppState, HealthOnly, Peer, Problem,
    auth::{ApiKeys, Grant, Identity},
    load_shedding::Shed,
    policy::{self, Access},
    rate_limits::{Counted, Network},
};
use crate::access::Role;
use service::{ErrorKind, Service};

/// Bytes of path and query.
const URL_BYTES_MAX: usize = 8 * 1024;

/// Questions about health, answered even where there is no room for anything else.
const HEALTH: [&str; 3] = ["/healthz", "/livez", READY];

/// Answers everybody, but tells more to who may know more.
const READY: &str = "/readyz";

/// Passes a request on, or refuses it.
pub(super) async fn admit(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    match check(&state, &request) {
        Ok(grant) => {
            grant.and_then(|grant| request.extensions_mut().insert(grant));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The refusal of connections beyond those that are served.
pub(super) fn too_many_connections() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "connections",
        "no room for more connections, or the server is stopping: try again",
    )
}

fn check(state: &AppState, request: &Request) -> Result<Option<Grant>, Problem> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if request.extensions().get::<HealthOnly>().is_some()
        && !route.is_some_and(|route| HEALTH.contains(&route))
    {
        return Err(too_many_connections());
    }
    if request.extensions().get::<Shed>().is_some() {
        return Err(Service::overloaded().into());
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
    let keys = state.settings.api_keys.load();
    if keys.is_empty() && authority.as_ref().is_some_and(|authority| !is_loopback(authority)) {
        let detail = "without an API key only loopback names (localhost, 127.0.0.1, [::1]) are served: \
                      use one of these, or start the server with --api-key";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host", detail).at("Host"));
    }
    check_origin(state, request, authority.as_ref())?;
    let access = route.map(|route| policy::access(request.method(), route));
    let network = network(state, request);
    if access == Some(Some(Access::Open)) {
        let grant = || match keys.is_empty() {
            true => Some(Grant::unrestricted()),
            // A wrong key counts as one: nobody tries keys here that are not tried elsewhere.
            false => identify(state, &keys, request, network).ok(),
        };
        return Ok((route == Some(READY)).then(grant).flatten());
    }
    let everybody = || Counted::Network(network.unwrap_or_default());
    let (grant, caller) = if keys.is_empty() {
        (Ok(Grant::unrestricted()), everybody())
    } else {
        let grant = identify(state, &keys, request, network);
        let key = grant.as_ref().ok().and_then(|grant| grant.key);
        (grant, key.map_or_else(everybody, Counted::Key))
    };
    if is_remote && let Some(wait) = state.limits.request(caller) {
        let detail = "more requests a second than this server takes of one caller (rate_limit): wait";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limit", detail).retry_after(wait));
    }
    let grant = grant?;
    match access {
        // No such path, which its handler tells; it opens nothing.
        None => Ok(Some(grant)),
        Some(access) => allow(state, access, grant, request).map(Some),
    }
}

/// Who calls, by the key that is brought.
fn identify(
    state: &AppState,
    keys: &ApiKeys,
    request: &Request,
    network: Option<Network>,
) -> Result<Grant, Problem> {
    if let Some(left) = network.and_then(|network| state.limits.locked_out(network)) {
        let detail = "too many wrong keys came from this address: no key of it is looked at for a while";
        return Err(
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-wrong-keys", detail).retry_after(left)
        );
    }
    let needed = "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`";
    match keys.identify(request.headers())? {
        Identity::By(grant) => Ok(grant),
        Identity::Anonymous => Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", needed)),
        Identity::UnknownKey => {
            network.into_iter().for_each(|network| state.limits.record_wrong_key(network));
            Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "this is no key of this server"))
        }
    }
}

/// Whether a caller may use a route, by what the route asks for.
fn allow(
    state: &AppState,
    access: Option<Access>,
    grant: Grant,
    request: &Request,
) -> Result<Grant, Problem> {
    let forbidden = |detail: String| Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    // What nobody has thought about is for those who may do anything.
    let access = access.unwrap_or(Access::Whole(Role::Admin));
    let needed = match access {
        Access::Open => return Ok(grant),
        Access::Collection(role) | Access::Listing(role) | Access::Whole(role) => role,
    };
    if grant.role < needed {
        return forbidden(format!(
            "this takes a key of the role {}; this one has {}",
            needed.name(),
            grant.role.name()
        ));
    }
    if grant.collections.is_empty() {
        return Ok(grant);
    }
    match access {
        Access::Whole(_) => forbidden("this takes a key that is for all collections".to_owned()),
        Access::Collection(_) => match collection(request) {
            // Told here: who comes further is told which collections there are.
            Some(name) if grant.covers(&name) && is_missing(state, &name) => {
                let detail = format!("there is no collection or alias {name:?}");
                let problem = Problem::new(StatusCode::NOT_FOUND, "collection-not-found", detail);
                Err(problem.at("collection"))
            }
            Some(name) if grant.covers(&name) => Ok(grant),
            Some(name) => forbidden(format!("this key is not for the collection {name:?}")),
            None => forbidden("this key is for certain collections: name one with `collection`".to_owned()),
        },
        _ => Ok(grant),
    }
}

/// Whether there is surely no collection of this name.
fn is_missing(state: &AppState, name: &str) -> bool {
    state.service.schema(name).is_err_and(|error| error.kind == ErrorKind::NotFound)
}

/// The collection a request names, in its path or its query.
fn collection(request: &Request) -> Option<String> {
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix("/collections/") {
        let name = rest.split('/').next().unwrap_or_default();
        return percent_encoding::percent_decode_str(name).decode_utf8().ok().map(Into::into);
    }
    let query = request.uri().query().unwrap_or_default().as_bytes();
    // Given twice, the handler refuses it.
    let mut pairs = form_urlencoded::parse(query).filter(|(name, _)| name == "collection");
    pairs.next().map(|(_, value)| value.into_owned())
}

/// Where a request came from: the peer, or, where that is a proxy that is trusted, whom it names last that is none.
fn network(state: &AppState, request: &Request) -> Option<Network> {
    let Peer(peer) = request.extensions().get::<Peer>()?;
    let trusted = |address: &IpAddr| {
        state.settings.trusted_proxies.iter().any(|network| network.contains(&address.to_canonical()))
    };
    let mut address = peer.ip();
    if trusted(&address) {
        let told = request.headers().get_all("x-forwarded-for").iter();
        let told: Vec<&str> =
            told.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).collect();
        for told in told.iter().rev() {
            let Ok(told) = told.trim().parse::<IpAddr>() else { break };
            address = told;
            if !trusted(&told) {
                break;
            }
        }
    }
    Some(address.into())
}

/// The name the client calls this server by. HTTP/1.0 may leave it out; no browser does.
fn authority(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<Option<Authority>, Problem> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let problem = |detail: &str| Problem::bad_request("host", detail).at("Host");
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
fn check_origin(state: &AppState, request: &Request, authority: Option<&Authority>) -> Result<(), Problem> {
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
            state.settings.cors_origins.iter().any(|listed| listed.as_str().eq_ignore_ascii_case(origin));
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
