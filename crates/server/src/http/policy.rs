//! What each route asks of its caller. One that is not listed is for admins.

use axum::http::Method;

use crate::access::Role;

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: the static page, and questions about health.
    Open,
    /// A key of this role or a greater one, for the collection the route names, if it names one.
    Collection(Role),
    /// A key of this role or a greater one. One for certain collections sees only those.
    Listing(Role),
    /// A key of this role or a greater one that is for all collections.
    Whole(Role),
}

const ROUTES: &[(&str, &str, Access)] = &[
    ("GET", "/", Access::Open),
    ("GET", "/app.js", Access::Open),
    ("GET", "/style.css", Access::Open),
    ("GET", "/favicon.svg", Access::Open),
    ("GET", "/healthz", Access::Open),
    ("GET", "/livez", Access::Open),
    ("GET", "/readyz", Access::Open),
    ("GET", "/openapi.json", Access::Listing(Role::Read)),
    ("GET", "/search", Access::Collection(Role::Read)),
    ("GET", "/kb/search", Access::Collection(Role::Read)),
    ("POST", "/collections/{c}/search", Access::Collection(Role::Read)),
    ("GET", "/collections", Access::Listing(Role::Read)),
    ("GET", "/collections/{c}", Access::Collection(Role::Read)),
    ("GET", "/collections/{c}/count", Access::Collection(Role::Read)),
    ("GET", "/collections/{c}/documents", Access::Collection(Role::Read)),
    ("GET", "/collections/{c}/documents/{id}", Access::Collection(Role::Read)),
    ("POST", "/collections/{c}/documents", Access::Collection(Role::Write)),
    ("PUT", "/collections/{c}/documents/{id}", Access::Collection(Role::Write)),
    ("PATCH", "/collections/{c}/documents/{id}", Access::Collection(Role::Write)),
    ("DELETE", "/collections/{c}/documents/{id}", Access::Collection(Role::Write)),
    ("POST", "/collections/{c}/delete", Access::Collection(Role::Write)),
    ("PUT", "/collections/{c}", Access::Whole(Role::Admin)),
    ("DELETE", "/collections/{c}", Access::Whole(Role::Admin)),
    ("PUT", "/aliases/{a}", Access::Whole(Role::Admin)),
    ("DELETE", "/aliases/{a}", Access::Whole(Role::Admin)),
    ("GET", "/stats", Access::Whole(Role::Read)),
    ("GET", "/metrics", Access::Whole(Role::Read)),
    ("GET", "/backup", Access::Whole(Role::Admin)),
    ("GET", "/doctor", Access::Whole(Role::Admin)),
];

/// What the route `path`, as the router names it, asks for, if it is listed.
pub(super) fn access(method: &Method, path: &str) -> Option<Access> {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let found = ROUTES.iter().find(|(of, route, _)| *of == method && *route == path);
    found.map(|(_, _, access)| *access)
}
