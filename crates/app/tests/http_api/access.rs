//! Access control by key, host and origin, and the headers of every response.

use std::sync::Arc;

use nearfield::config::{AcceptedKey, ApiKey, Origin, Role};
use serde_json::json;
use server::access::{AccessControl, AccessSettings, ApiKeys};
use server::http::HttpSettings;
use server::serve::ConnectionSettings;

use crate::{
    client::Response,
    server::{JSON, Server},
};

const KEY: &str = "a-key-of-the-tests-0123456789";
const APP: &str = "https://app.example.com";

/// A server that accepts `wrong_keys_max` wrong keys per minute.
pub(crate) fn with_keys(keys: &[AcceptedKey], wrong_keys_max: u32) -> Server {
    let keys = ApiKeys::new(keys);
    let access = AccessSettings { keys, wrong_keys_max, ..AccessSettings::default() };
    let http = HttpSettings { access: Arc::new(AccessControl::new(access)), ..HttpSettings::default() };
    Server::with(ConnectionSettings { http, ..ConnectionSettings::default() })
}

fn with_key() -> Server {
    with_keys(&[AcceptedKey::new(&ApiKey::new(KEY).unwrap(), Role::Admin)], u32::MAX)
}

#[test]
fn limits_the_rate_per_address_without_a_key_and_per_key_otherwise() {
    let keys = [AcceptedKey::new(&ApiKey::new(KEY).unwrap(), Role::Admin)];
    let access = AccessSettings { keys: ApiKeys::new(&keys), rate_limit: 3, wrong_keys_max: u32::MAX };
    let http = HttpSettings { access: Arc::new(AccessControl::new(access)), ..HttpSettings::default() };
    let server = Server::with(ConnectionSettings { http, ..ConnectionSettings::default() });
    // Even on a slow machine, thirty requests take less than ten seconds.
    let assert_rate_limited = |headers: &[(&str, &str)], accepted_status: u16| {
        let responses: Vec<Response> =
            (0..30).map(|_| server.send("GET", "/collections", headers, b"")).collect();
        let (rejected, accepted): (Vec<_>, Vec<_>) =
            responses.into_iter().partition(|response| response.status == 429);
        assert!(
            accepted.iter().all(|response| response.status == accepted_status) && accepted.len() >= 3,
            "{}",
            accepted.len()
        );
        assert!(
            rejected.iter().all(|response| response.header("retry-after").is_some()) && !rejected.is_empty()
        );
        rejected.into_iter().next().unwrap().problem(429, "rate-limit");
    };
    assert_rate_limited(&[], 401);
    assert_rate_limited(&[("x-api-key", KEY)], 200);
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_key_keeps_its_request_count_when_keys_are_reloaded_in_another_order() {
    let admin_key = |key: &str| AcceptedKey::new(&ApiKey::new(key).unwrap(), Role::Admin);
    let other = "another-key-of-the-tests-0123456";
    let keys = ApiKeys::new(&[admin_key(KEY), admin_key(other)]);
    let access =
        Arc::new(AccessControl::new(AccessSettings { keys, rate_limit: 1, ..AccessSettings::default() }));
    let http = HttpSettings { access: access.clone(), ..HttpSettings::default() };
    let server = Server::with(ConnectionSettings { http, ..ConnectionSettings::default() });
    let status = |key: &str| server.send("GET", "/collections", &[("x-api-key", key)], b"").status;
    // After the first rejection, the next request with this key would be rejected too.
    while status(KEY) != 429 {}
    access.replace_keys(ApiKeys::new(&[admin_key(other), admin_key(KEY)]));
    assert_eq!(status(other), 200);
}

fn with_origin() -> Server {
    let cors_origins = vec![Origin::new(APP).unwrap()];
    let http = HttpSettings { cors_origins, ..HttpSettings::default() };
    Server::with(ConnectionSettings { http, ..ConnectionSettings::default() })
}

#[test]
fn requires_a_configured_key_except_for_health_and_the_page() {
    let server = with_key();
    for path in ["/", "/app.js", "/style.css", "/favicon.svg", "/healthz", "/livez", "/readyz"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let protected = [
        ("GET", "/search?q=a"),
        ("GET", "/kb/search?q=a"),
        ("GET", "/collections"),
        ("PUT", "/collections/kb"),
        ("DELETE", "/collections/kb"),
        ("POST", "/collections/kb/documents"),
        ("GET", "/collections/kb/documents/a"),
        ("POST", "/collections/kb/search"),
        ("POST", "/collections/kb/delete"),
        ("PUT", "/aliases/a"),
        ("GET", "/stats"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/readyz/"),
        ("GET", "//healthz"),
        ("DELETE", "/stats"),
    ];
    for (method, path) in protected {
        for headers in [
            &[][..],
            &[("authorization", "Bearer a-key-of-the-tests-012345678X")],
            &[("authorization", "Basic a-key-of-the-tests-0123456789")],
            &[("x-api-key", "")],
            &[("cookie", KEY)],
        ] {
            let response = server.send(method, path, headers, b"");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"), "{method} {path}");
            let problem = response.problem(401, "unauthorized");
            assert!(!problem.to_string().contains(KEY));
        }
        let bearer = format!("Bearer {KEY}");
        for header in [("authorization", &*bearer), ("x-api-key", KEY)] {
            assert_ne!(server.send(method, path, &[header], b"").status, 401, "{method} {path}");
        }
    }
    server.get(&format!("/search?q=a&api_key={KEY}")).problem(401, "unauthorized");
}

#[test]
fn serves_only_loopback_hosts_without_a_key() {
    let server = Server::start();
    let get = |host: &str| server.send("GET", "/collections", &[("host", host)], b"");
    for good in ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000"] {
        assert_eq!(get(good).status, 200, "{good}");
    }
    for bad in
        ["example.com", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example"]
    {
        get(bad).problem(421, "host");
    }
    get("a b").problem(400, "host");
    let response = |bytes: &str| {
        let mut connection = server.connect();
        connection.write(bytes);
        Response::parse(&connection.read_to_end()).unwrap()
    };
    response("GET /collections HTTP/1.1\r\nconnection: close\r\n\r\n").problem(400, "host");
    response(
        "GET /collections HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
    )
    .problem(400, "host");
    response("GET http://evil.example/collections HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .problem(421, "host");
    assert_eq!(response("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    // With a key, any host name is accepted.
    assert_eq!(with_key().send("GET", "/healthz", &[("host", "search.example.com")], b"").status, 200);
}

#[test]
fn rejects_writes_from_other_origins() {
    let server = with_origin();
    let put = |origin: &str| {
        server.send("PUT", "/aliases/a", &[JSON, ("origin", origin)], b"{\"collection\": \"x\"}")
    };
    for foreign in
        ["https://evil.example", "null", "http://app.example.com", "https://app.example.com.evil.example"]
    {
        put(foreign).problem(403, "origin");
    }
    assert_eq!(put(APP).status, 404, "accepted: the collection does not exist");
    assert_eq!(put("http://localhost").status, 404, "the page's own origin");
    assert_eq!(put("http://localhost:81").status, 403, "another port is another origin");
    let get = server.send("GET", "/collections", &[("origin", "https://evil.example")], b"");
    assert_eq!((get.status, get.header("access-control-allow-origin")), (200, None));
}

#[test]
fn sends_cors_headers_to_listed_origins() {
    let server = with_origin();
    let response = server.send("GET", "/collections", &[("origin", APP)], b"");
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    assert!(response.header("access-control-expose-headers").unwrap().contains("etag"));
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "content-type,if-match,x-api-key"),
        ];
        server.send("OPTIONS", "/collections/kb", &headers, b"")
    };
    let response = preflight(APP);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    assert!(response.header("access-control-allow-methods").unwrap().contains("PUT"));
    assert!(response.header("access-control-allow-headers").unwrap().contains("if-match"));
    assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), None);
}

#[test]
fn every_response_has_the_security_headers() {
    let server = Server::start();
    for path in ["/collections", "/search", "/nowhere", "/healthz", "/openapi.json", "/", "/app.js"] {
        let response = server.get(path);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = response.header("content-security-policy").unwrap();
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        let page = ["/", "/app.js"].contains(&path);
        assert_eq!(
            response.header("cache-control"),
            Some(if page { "no-cache" } else { "no-store" }),
            "{path}"
        );
    }
    let policy = server.get("/").header("content-security-policy").unwrap().to_owned();
    for part in ["default-src 'self'", "object-src 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
}

#[test]
fn reports_unknown_paths_and_methods_as_problems() {
    let server = Server::start();
    server.get("/nowhere").problem(404, "path-not-found");
    server.get("/collections/").problem(404, "path-not-found");
    let response = server.delete("/search");
    assert!(response.header("allow").unwrap().contains("GET"), "{response:?}");
    response.problem(405, "method-not-allowed");
    server.send("BREW", "/collections/kb", &[], b"").problem(405, "method-not-allowed");
    server.post("/collections", &json!({})).problem(405, "method-not-allowed");
    let head = server.send("HEAD", "/healthz", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}
