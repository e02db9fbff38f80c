//! The web page and its files.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};

use crate::{http::response, ui};

/// The page may load its own files and call its own server, nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// The web page.
#[utoipa::path(
    get, path = "/", tag = "page", security(()), responses((status = 200, body = String, content_type = "text/html"))
)]
pub(super) async fn index() -> Response<Body> {
    file("/")
}

/// The page's script.
#[utoipa::path(
    get, path = "/app.js", tag = "page", security(()),
    responses((status = 200, body = String, content_type = "text/javascript"))
)]
pub(super) async fn script() -> Response<Body> {
    file("/app.js")
}

/// The page's style.
#[utoipa::path(
    get, path = "/style.css", tag = "page", security(()),
    responses((status = 200, body = String, content_type = "text/css"))
)]
pub(super) async fn style() -> Response<Body> {
    file("/style.css")
}

/// The page's icon.
#[utoipa::path(
    get, path = "/favicon.svg", tag = "page", security(()),
    responses((status = 200, body = String, content_type = "image/svg+xml"))
)]
pub(super) async fn icon() -> Response<Body> {
    file("/favicon.svg")
}

fn file(path: &str) -> Response<Body> {
    let asset = ui::asset(path).expect("every route here has a file");
    let mut response = response::shared(asset.bytes.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
