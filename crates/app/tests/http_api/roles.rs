//! Authorization: every route of the description with every kind of key.

use std::{collections::BTreeSet, sync::Arc};

use nearfield::config::{AcceptedKey, ApiKey, Coverage, Role};
use serde_json::json;
use server::access::{AccessControl, AccessSettings, ApiKeys};
use server::http::HttpSettings;
use server::serve::ConnectionSettings;

use crate::{
    access::with_keys,
    client::Response,
    description::operations,
    server::{JSON, Server, schema},
};

const ADMIN: &str = "an-admin-of-the-tests-0123456789";
const WRITER: &str = "a-writer-of-the-tests-0123456789";
const READER: &str = "a-reader-of-the-tests-0123456789";
/// Reads and writes only the collection `kb`.
const KB_WRITER: &str = "a-writer-of-kb-alone-0123456789";
/// Reads only the collection `other`.
const OTHER_READER: &str = "a-reader-of-other-alone-01234567";

/// Reads the collection `kb`, and another one by an alias.
const BOTH_READER: &str = "a-reader-of-kb-and-an-alias-0123";

fn server() -> Server {
    let key = |key: &str, role, collections: &[&str]| AcceptedKey {
        collections: match collections {
            [] => Coverage::All,
            names => Coverage::Named(names.iter().map(|name| (*name).to_owned()).collect()),
        },
        ..AcceptedKey::new(&ApiKey::new(key).unwrap(), role)
    };
    let keys = [
        key(ADMIN, Role::Admin, &[]),
        key(WRITER, Role::Write, &[]),
        key(READER, Role::Read, &[]),
        key(KB_WRITER, Role::Write, &["kb"]),
        key(OTHER_READER, Role::Read, &["other", "gone"]),
        key(BOTH_READER, Role::Read, &["kb", "other-name"]),
    ];
    let server = with_keys(&keys, u32::MAX);
    for name in ["kb", "other"] {
        let response = send(&server, "PUT", &format!("/collections/{name}"), ADMIN, &schema().to_string());
        assert_eq!(response.status, 201, "{response:?}");
    }
    server
}

fn send(server: &Server, method: &str, path: &str, key: &str, body: &str) -> Response {
    let bearer = format!("Bearer {key}");
    server.send(method, path, &[JSON, ("authorization", &bearer)], body.as_bytes())
}

/// Whether a route accepts each kind of key.
fn expected(method: &str, path: &str) -> [(&'static str, bool); 5] {
    let is_public =
        ["/", "/app.js", "/style.css", "/favicon.svg", "/healthz", "/livez", "/readyz"].contains(&path);
    let is_collection_route = path.contains("{c}") || path == "/search" || path == "/kb/search";
    let required = match (method, path) {
        _ if is_public => Role::Read,
        ("PUT" | "DELETE", "/collections/{c}" | "/aliases/{a}") | ("GET", "/backup" | "/doctor") => {
            Role::Admin
        }
        ("POST", "/collections/{c}/search") | ("GET", _) => Role::Read,
        _ => Role::Write,
    };
    // These responses contain only what the key has access to.
    let is_for_any_key = ["/collections", "/aliases", "/openapi.json"].contains(&path);
    [
        (ADMIN, true),
        (WRITER, required <= Role::Write),
        (READER, required <= Role::Read),
        (KB_WRITER, is_public || is_for_any_key || (is_collection_route && required <= Role::Write)),
        (OTHER_READER, is_public || is_for_any_key),
    ]
}

#[test]
fn every_route_requires_its_role() {
    let server = server();
    let api = send(&server, "GET", "/openapi.json", READER, "").ok(200);
    let mut routes = BTreeSet::new();
    for (method, path, _) in operations(&api) {
        let target = path.replace("{c}", "kb").replace("{id}", "none").replace("{a}", "none");
        let target = if target.ends_with("search") && method == "GET" {
            format!("{target}?collection=kb&q=a")
        } else {
            target
        };
        let is_public = expected(&method, &path).iter().all(|(_, is_allowed)| *is_allowed)
            && !target.contains("kb")
            && !["/collections", "/aliases", "/openapi.json"].contains(&&*path);
        for (key, is_allowed) in expected(&method, &path) {
            // With the admin's key, this request would drop the collection.
            if key == ADMIN && method == "DELETE" && path == "/collections/{c}" {
                continue;
            }
            let response = send(&server, &method, &target, key, "{}");
            let status = response.status;
            assert_eq!(
                status != 401 && status != 403,
                is_allowed,
                "{method} {path} with {key}: {}",
                response.text()
            );
            if !is_allowed {
                response.problem(403, "forbidden");
            }
        }
        for headers in
            [&[][..], &[("x-api-key", "an-unknown-key-of-tests-0123456789")], &[("authorization", "Bearer")]]
        {
            let response = server.send(&method, &target, headers, b"");
            assert_eq!(
                response.status == 401,
                !is_public,
                "{method} {path} with {headers:?}: {}",
                response.status
            );
        }
        // A key in the query string is ignored.
        let separator = if target.contains('?') { '&' } else { '?' };
        let response = server.send(&method, &format!("{target}{separator}api_key={ADMIN}"), &[], b"");
        assert_eq!(response.status == 401, !is_public, "{method} {path}: {}", response.status);
        let bearer = format!("Bearer {ADMIN}");
        let response =
            server.send(&method, &target, &[("authorization", &bearer), ("x-api-key", ADMIN)], b"");
        assert_eq!(response.status == 400, !is_public, "{method} {path}: {}", response.status);
        routes.insert(format!("{method} {path}"));
    }
    assert!(routes.len() >= 28, "{routes:?}");
}

#[test]
fn a_key_for_one_collection_has_no_access_to_others() {
    let server = server();
    let names = |key: &str| -> Vec<String> {
        let list = send(&server, "GET", "/collections", key, "").ok(200);
        list["collections"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(READER), ["kb", "other"]);
    assert_eq!(names(KB_WRITER), ["kb"]);
    assert_eq!(names(OTHER_READER), ["other"]);
    let get = |path: &str| send(&server, "GET", path, KB_WRITER, "");
    get("/collections/other").problem(403, "forbidden");
    get("/collections/%6Fther").problem(403, "forbidden");
    get("/search?q=a").problem(403, "forbidden");
    get("/search?q=a&collection=other").problem(403, "forbidden");
    get("/search?q=a&collection=oth%65r").problem(403, "forbidden");
    get("/search?q=a&collection=kb&collection=other").problem(400, "parameter-repeated");
    get("/search?q=a&collection=kb").ok(200);
    // The key does not cover the alias, which is another name.
    let alias = send(&server, "PUT", "/aliases/nickname", ADMIN, &json!({"collection": "kb"}).to_string());
    assert_eq!(alias.status, 200);
    get("/search?q=a&collection=nickname").problem(403, "forbidden");
    let write = |name: &str| {
        let path = format!("/collections/{name}/documents");
        send(&server, "POST", &path, KB_WRITER, &json!([{"id": "a", "title": "apple"}]).to_string())
    };
    write("kb").ok(200);
    write("other").problem(403, "forbidden");
}

#[test]
fn errors_do_not_reveal_other_collections_to_a_restricted_key() {
    let server = server();
    for (method, path, body) in [
        ("GET", "/collections/gone", ""),
        ("GET", "/search?collection=gone&q=a", ""),
        ("GET", "/kb/search?collection=gone&q=a", ""),
        ("GET", "/collections/gone/documents", ""),
        ("GET", "/collections/gone/documents/a", ""),
        ("GET", "/collections/gone/count", ""),
        ("POST", "/collections/gone/search", r#"{"text": "a"}"#),
    ] {
        let problem = send(&server, method, path, OTHER_READER, body).problem(404, "collection-not-found");
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.contains("kb") && !detail.contains("other"), "{method} {path}: {detail}");
    }
    // For a key with access to everything, the error lists the collections.
    let problem = send(&server, "GET", "/collections/gone", READER, "").problem(404, "collection-not-found");
    assert!(problem["detail"].as_str().unwrap().contains("kb, other"), "{problem}");
}

#[test]
fn only_keys_for_all_collections_can_read_readiness_notes() {
    let server = server();
    let put = |path: &str, body: serde_json::Value| send(&server, "PUT", path, ADMIN, &body.to_string());
    let titles = json!({"prefixes": ["shared:"], "fields": [{"name": "title", "kind": "text"}]});
    put("/collections/titles", titles).ok(201);
    put("/collections/titles/documents/kept-private", json!({"title": "a", "year": "soon"})).ok(201);
    let years = json!({"prefixes": ["shared:"], "fields": [{"name": "year", "kind": "numeric"}]});
    put("/collections/years", years).ok(201);
    for key in [ADMIN, WRITER, READER] {
        let notes = send(&server, "GET", "/readyz", key, "").ok(200)["notes"].to_string();
        assert!(notes.contains("years") && notes.contains("kept-private"), "{notes}");
    }
    let bearers =
        [KB_WRITER, OTHER_READER, "an-unknown-key-of-tests-0123456789"].map(|key| format!("Bearer {key}"));
    let mut headers: Vec<Vec<(&str, &str)>> =
        bearers.iter().map(|bearer| vec![("authorization", bearer.as_str())]).collect();
    headers.extend([
        vec![],
        vec![("authorization", "Basic x")],
        vec![("x-api-key", ADMIN), ("x-api-key", ADMIN)],
    ]);
    for headers in headers {
        let readiness = server.send("GET", "/readyz", &headers, b"").ok(200);
        assert_eq!(readiness["ready"], true);
        assert_eq!(readiness["notes"], json!(["notes that only a key for all collections can read: 1"]));
    }
}

#[test]
fn wrong_keys_on_readiness_count_as_attempts() {
    let server = with_keys(&[AcceptedKey::new(&ApiKey::new(ADMIN).unwrap(), Role::Admin)], 10);
    for _ in 0..20 {
        // Readiness and health respond to everyone.
        send(&server, "GET", "/readyz", "an-unknown-key-of-tests-0123456789", "").ok(200);
        send(&server, "GET", "/healthz", "an-unknown-key-of-tests-0123456789", "").ok(200);
    }
    send(&server, "GET", "/stats", ADMIN, "").problem(429, "too-many-wrong-keys");
}

#[test]
fn rejects_all_keys_of_an_address_after_ten_wrong_ones() {
    let server = with_keys(&[AcceptedKey::new(&ApiKey::new(ADMIN).unwrap(), Role::Admin)], 10);
    for _ in 0..10 {
        send(&server, "GET", "/stats", "an-unknown-key-of-tests-0123456789", "").problem(401, "unauthorized");
    }
    let response = send(&server, "GET", "/stats", ADMIN, "");
    let retry_after: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    response.problem(429, "too-many-wrong-keys");
    // An address claimed in a header is ignored.
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", &*bearer), ("x-forwarded-for", "192.0.2.1")];
    server.send("GET", "/stats", &headers, b"").problem(429, "too-many-wrong-keys");
    server.get("/healthz").ok(200);
}

#[test]
fn wrong_keys_lock_out_their_client_behind_a_proxy_and_nobody_else() {
    let keys = ApiKeys::new(&[AcceptedKey::new(&ApiKey::new(ADMIN).unwrap(), Role::Admin)]);
    let access = AccessControl::new(AccessSettings { keys, ..AccessSettings::default() });
    let trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let http = HttpSettings { access: Arc::new(access), trusted_proxies, ..HttpSettings::default() };
    let server = Server::with(ConnectionSettings { http, ..ConnectionSettings::default() });
    let status = |key: &str, header: Option<(&str, &str)>| {
        let bearer = format!("Bearer {key}");
        let headers: Vec<_> = [("authorization", bearer.as_str())].into_iter().chain(header).collect();
        server.send("GET", "/stats", &headers, b"").status
    };
    let clients = [
        ("x-forwarded-for", "192.0.2.1:4711"),
        ("x-forwarded-for", "unknown"),
        ("x-forwarded-for", "192.0.2.9, [2001:db8:1::1]:80"),
        ("forwarded", "for=\"[2001:db8:2::1]:4711\";proto=http"),
        ("forwarded", "for=192.0.2.2, for=127.0.0.1"),
    ];
    for (number, client) in clients.into_iter().enumerate() {
        for _ in 0..10 {
            assert_eq!(status("an-unknown-key-of-tests-0123456789", Some(client)), 401, "{client:?}");
        }
        assert_eq!(status(ADMIN, Some(client)), 429, "{client:?}");
        for other in &clients[number + 1..] {
            assert_eq!(status(ADMIN, Some(*other)), 200, "{other:?} after {client:?}");
        }
        assert_eq!(status(ADMIN, Some(("x-forwarded-for", "192.0.2.3"))), 200);
        assert_eq!(status(ADMIN, None), 200, "the proxy itself, after {client:?}");
    }
}

#[test]
fn a_key_for_one_collection_does_not_reach_documents_that_belong_to_another() {
    let server = server();
    let put = |path: &str, body: serde_json::Value| send(&server, "PUT", path, ADMIN, &body.to_string());
    put("/collections/kb/documents/private:1", json!({"title": "secret"})).ok(201);
    let requests = [
        ("GET", "/collections/kb/documents/private:1", ""),
        ("GET", "/collections/kb/documents", ""),
        ("GET", "/collections/kb/count", ""),
        ("GET", "/search?collection=kb&q=secret", ""),
        ("GET", "/kb/search?collection=kb&q=secret", ""),
        ("POST", "/collections/kb/search", r#"{"text": "secret"}"#),
        ("PUT", "/collections/kb/documents/private:1", r#"{"title": "changed"}"#),
        ("PATCH", "/collections/kb/documents/private:1", r#"{"title": "changed"}"#),
        ("POST", "/collections/kb/documents", r#"{"id": "private:1", "title": "changed"}"#),
        ("POST", "/collections/kb/delete", r#"{"filter": "*"}"#),
        ("DELETE", "/collections/kb/documents/private:1", ""),
    ];
    // Nested in the prefix, around it, and the same.
    for prefix in ["kb:private:", "kb", "kb:"] {
        let name = "hidden-collection";
        let schema = json!({"prefixes": [prefix], "fields": [{"name": "title", "kind": "text"}]});
        put(&format!("/collections/{name}"), schema).ok(201);
        for (method, path, body) in requests {
            let problem = send(&server, method, path, KB_WRITER, body).problem(403, "forbidden");
            assert!(!problem.to_string().contains("hidden"), "{problem}");
        }
        send(&server, "GET", "/collections/kb", KB_WRITER, "").ok(200);
        let found = send(&server, "GET", "/collections/kb/documents/private:1", WRITER, "").ok(200);
        assert_eq!(found["fields"]["title"], "secret");
        // A key that covers an alias of the other collection may read the documents there.
        put("/aliases/other-name", json!({"collection": name})).ok(200);
        send(&server, "GET", "/collections/kb/documents/private:1", BOTH_READER, "").ok(200);
        let aliases = |key| send(&server, "GET", "/aliases", key, "").ok(200)["aliases"].clone();
        for key in [ADMIN, READER, BOTH_READER] {
            assert_eq!(aliases(key), json!([{"alias": "other-name", "collection": name}]));
        }
        assert_eq!(aliases(KB_WRITER), json!([]));
        assert_eq!(send(&server, "DELETE", "/aliases/other-name", ADMIN, "").status, 204);
        send(&server, "GET", "/collections/kb/documents", BOTH_READER, "").problem(403, "forbidden");
        assert_eq!(
            send(&server, "DELETE", &format!("/collections/{name}?documents=keep"), ADMIN, "").status,
            204
        );
        send(&server, "GET", "/collections/kb/documents/private:1", KB_WRITER, "").ok(200);
    }
}
