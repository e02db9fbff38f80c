//! Requests: any body and any address get an answer that is no fault of the program.
#![no_main]

use std::sync::LazyLock;

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use nearfield::{
    config::{Flags, Settings},
    http::{self, HttpSettings},
    service::Service,
};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

static HOUSE: LazyLock<(Runtime, Router)> = LazyLock::new(|| {
    let home = tempfile::tempdir().expect("a directory").keep();
    let flags = Flags { home: Some(home), ..Flags::default() };
    let settings = Settings::from_sources(&flags, None, []).expect("no settings are right");
    let service = Service::open(settings.service()).expect("a new store opens");
    let router = http::router(service, HttpSettings::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let schema = r#"{"fields": [{"name": "title", "kind": "text"}, {"name": "tag", "kind": "tag"},
        {"name": "year", "kind": "numeric"}, {"name": "place", "kind": "vector", "dim": 2, "metric": "l2"}]}"#;
    let made = ask(&runtime, &router, "PUT", "/collections/kb", "application/json", schema.as_bytes());
    assert_eq!(made, 201);
    (runtime, router)
});

fn ask(runtime: &Runtime, router: &Router, method: &str, path: &str, kind: &str, body: &[u8]) -> u16 {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let Ok(request) = request.body(Body::from(body.to_vec())) else { return 0 };
    runtime.block_on(async {
        let reply = router.clone().oneshot(request).await.expect("a router is infallible");
        let status = reply.status().as_u16();
        let _ = reply.into_body().collect().await;
        status
    })
}

const ROUTES: [(&str, &str, &str); 8] = [
    ("POST", "/collections/kb/documents", "application/json"),
    ("POST", "/collections/kb/documents", "application/x-ndjson"),
    ("PUT", "/collections/kb/documents/a", "application/json"),
    ("PATCH", "/collections/kb/documents/a", "application/json"),
    ("POST", "/collections/kb/search", "application/json"),
    ("POST", "/collections/kb/delete", "application/json"),
    ("PUT", "/collections/none-of-these?rebuild=maybe", "application/json"),
    ("PUT", "/aliases/a", "application/json"),
];

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (route, query, body) = input;
    let (runtime, router) = &*HOUSE;
    let (method, path, kind) = ROUTES[usize::from(route) % ROUTES.len()];
    let status = ask(runtime, router, method, path, kind, body);
    assert!(status < 500 || status == 503, "{method} {path}: {status}");
    let status = ask(runtime, router, "GET", &format!("/search?collection=kb&{query}"), kind, b"");
    assert!(status < 500 || status == 503, "GET /search?{query}: {status}");
});
