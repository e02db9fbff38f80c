//! Admission of requests: connection limit, URL length, host, origin, key, rate and role, before the body is read.
//! Whatever the routing table does not permit is denied.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    AppState, Authenticated, HealthOnly, Peer, Problem, charge, error_code::ErrorCode,
    key_header::key_from_headers, load_shedding::Shed,
};
use crate::access::{Action, CallerId, Denial, Grant, Network, Scope};
use service::{ErrorKind, Service};

/// Bytes of path and query.
const URL_BYTES_MAX: usize = 8 * 1024;

/// Passes a request on with its [`Grant`], or rejects it.
pub(super) async fn admit(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    match check(&state, &request) {
        Ok(Admitted { grant, caller }) => {
            grant.and_then(|grant| request.extensions_mut().insert(grant));
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            charge::charge(&state.settings.response_budget, caller, response)
        }
        Err(problem) => problem.into_response(),
    }
}

/// The rejection of connections beyond the limit.
pub(super) fn too_many_connections() -> Problem {
    Problem::new(ErrorCode::Connections, "all connections are in use, or the server is stopping: try again")
}

/// The caller of an admitted request.
struct Admitted {
    /// Its rights; none for public actions other than the readiness check.
    grant: Option<Grant>,
    caller: CallerId,
}

impl Admitted {
    fn new(grant: Option<Grant>, network: Option<Network>) -> Admitted {
        Admitted { caller: CallerId::new(grant.as_ref(), network), grant }
    }
}

/// Checks everything that does not need the body.
fn check(state: &AppState, request: &Request) -> Result<Admitted, Problem> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let action = route.map(|route| state.actions.get(request.method(), route));
    if request.extensions().get::<HealthOnly>().is_some() && !action.is_some_and(Action::is_health_check) {
        return Err(too_many_connections());
    }
    if request.extensions().get::<Shed>().is_some() {
        return Err(Service::overloaded().into());
    }
    if request.uri().path_and_query().is_some_and(|url| url.as_str().len() > URL_BYTES_MAX) {
        let detail =
            format!("path and query are longer than {URL_BYTES_MAX} bytes: send a longer search as POST");
        return Err(Problem::new(ErrorCode::UrlLength, detail));
    }
    let is_remote = request.extensions().get::<Peer>().is_some();
    let authority = match is_remote {
        true => authority(request.headers(), request.uri(), request.version())?,
        false => None,
    };
    let access = &state.settings.access;
    if !access.requires_key() && authority.as_ref().is_some_and(|authority| !is_loopback(authority)) {
        let detail = "without an API key the server answers only to loopback names (localhost, 127.0.0.1, [::1]): \
                      use one of these, or start the server with --api-key";
        return Err(Problem::new(ErrorCode::Host, detail)
            .with_status(StatusCode::MISDIRECTED_REQUEST)
            .at("Host"));
    }
    check_origin(state, request, authority.as_ref())?;
    let network = network(state, request);
    if let Some(action) = action
        && action.requirement().is_none()
    {
        // The readiness check shows details to callers with a key. A wrong key counts towards the lockout here too.
        let shows_details = action == Action::CheckReadiness;
        let grant = shows_details.then(|| authenticate(state, request, network).ok()).flatten();
        if grant.is_some() && access.requires_key() {
            mark_authenticated(request);
        }
        return Ok(Admitted::new(grant, network));
    }
    let grant = authenticate(state, request, network);
    if is_remote {
        access.check_rate(CallerId::new(grant.as_ref().ok(), network))?;
    }
    let grant = grant?;
    mark_authenticated(request);
    if let Some(action) = action {
        authorize(state, action, &grant, request)?;
    }
    // Without a route there is nothing to authorize: the fallback handler answers 404.
    Ok(Admitted::new(Some(grant), network))
}

/// Protects the connection of a request from being closed for others.
fn mark_authenticated(request: &Request) {
    request.extensions().get::<Authenticated>().into_iter().for_each(Authenticated::set);
}

/// The grant that belongs to the key of a request.
fn authenticate(state: &AppState, request: &Request, network: Option<Network>) -> Result<Grant, Problem> {
    let access = &state.settings.access;
    if !access.requires_key() {
        return Ok(Grant::unrestricted());
    }
    access.check_lockout(network)?;
    let key = key_from_headers(request.headers())?;
    Ok(access.authenticate(key, network)?)
}

/// Checks that the caller may perform `action` on the collection that the request names.
fn authorize(state: &AppState, action: Action, grant: &Grant, request: &Request) -> Result<(), Problem> {
    let collection = collection(request);
    grant.authorize(action, collection.as_deref())?;
    let is_named = matches!(action.requirement(), Some((_, Scope::Named)));
    if let Some(name) = &collection
        && is_named
        && !grant.covers_all()
        && is_missing(state, name)
    {
        // Reported here because the handler's message would list the names of all collections.
        let detail = format!("there is no collection or alias {name:?}");
        let problem = Problem::new(ErrorCode::CollectionNotFound, detail);
        return Err(problem.at("collection"));
    }
    if let Some(name) = collection
        && action.reaches_documents()
        && !grant.covers_all()
        && state.service.shares_documents(&name, |other| grant.covers(other))?
    {
        return Err(Denial::SharedDocuments(name).into());
    }
    Ok(())
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Problem {
        let unauthorized = |detail| Problem::new(ErrorCode::Unauthorized, detail);
        let forbidden = |detail: String| Problem::new(ErrorCode::Forbidden, detail);
        match denial {
            Denial::KeyMissing => unauthorized(
                "an API key is required: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
            ),
            Denial::KeyUnknown => unauthorized("the API key is not one of this server's"),
            Denial::LockedOut { retry_after } => {
                let detail =
                    "too many wrong API keys came from this address: its keys are not checked for now";
                Problem::new(ErrorCode::TooManyWrongKeys, detail).retry_after(retry_after)
            }
            Denial::RateLimited { retry_after } => {
                let detail = "the rate limit (rate_limit) is exceeded: wait before the next request";
                Problem::new(ErrorCode::RateLimit, detail).retry_after(retry_after)
            }
            Denial::Role { required, actual } => forbidden(format!(
                "this requires a key with the role {}; the key sent has {}",
                required.name(),
                actual.name()
            )),
            Denial::AllCollections => forbidden("this requires a key for all collections".to_owned()),
            Denial::CollectionUnnamed => forbidden(
                "the key is limited to certain collections: name one of them with `collection`".to_owned(),
            ),
            // The other collection is not named: the key may not know of it.
            Denial::SharedDocuments(name) => forbidden(format!(
                "documents of the collection {name:?} may also belong to a collection that the key does not cover: use a key \
                 that covers all collections with these documents, or give the collections separate prefixes"
            )),
            Denial::Collection(name) => forbidden(format!("the key does not cover the collection {name:?}")),
        }
    }
}

/// Whether no collection or alias has this name.
fn is_missing(state: &AppState, name: &str) -> bool {
    state.service.schema(name).is_err_and(|error| error.kind == ErrorKind::NotFound)
}

/// The collection that a request names in its path or query.
fn collection(request: &Request) -> Option<String> {
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix("/collections/") {
        let name = rest.split('/').next().unwrap_or_default();
        return percent_encoding::percent_decode_str(name).decode_utf8().ok().map(Into::into);
    }
    let query = request.uri().query().unwrap_or_default().as_bytes();
    // The handler rejects a repeated parameter.
    let mut pairs = form_urlencoded::parse(query).filter(|(name, _)| name == "collection");
    pairs.next().map(|(_, value)| value.into_owned())
}

/// The network of the client; `None` for requests made within the process.
fn network(state: &AppState, request: &Request) -> Option<Network> {
    let Peer(peer) = request.extensions().get::<Peer>()?;
    Some(state.proxies.client_network(peer.ip(), request.headers()))
}

/// The name by which the client addresses this server. HTTP/1.0 permits its absence; browsers always send it.
fn authority(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<Option<Authority>, Problem> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let problem = |detail: &str| Problem::new(ErrorCode::Host, detail).at("Host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) => Ok(Some(authority)),
            Err(_) => Err(problem("the Host header is not a host name and port")),
        },
        (Some(_), Some(_)) => Err(problem("the Host header is repeated")),
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

/// Rejects changes from web pages of another origin unless it is listed, even with a key.
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
            let detail = format!(
                "web pages of {origin:?} must not change anything: allow the origin with --cors-origin"
            );
            return Err(Problem::new(ErrorCode::Origin, detail).at("Origin"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_loopback_names_only() {
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
