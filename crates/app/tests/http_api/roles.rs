//! Authorization: every route of the description with every kind of key.

use std::collections::BTreeMap;

use nearfield::config::{AcceptedKey, ApiKey, Role};
use serde_json::json;

use crate::{
    admission::with_keys,
    client::Reply,
    description::operations,
    server::{JSON, Server, schema},
};

const ADMIN: &str = "an-admin-of-the-tests-0123456789";
const WRITER: &str = "a-writer-of-the-tests-0123456789";
const READER: &str = "a-reader-of-the-tests-0123456789";
/// Reads and writes only the collection `kb`.
const OF_KB: &str = "a-writer-of-kb-alone-0123456789";
/// Reads only the collection `other`.
const OF_OTHER: &str = "a-reader-of-other-alone-01234567";

fn server() -> Server {
    let accepted = |key: &str, role, collections: &[&str]| AcceptedKey {
        collections: collections.iter().map(|name| (*name).to_owned()).collect(),
        ..AcceptedKey::new(&ApiKey::new(key).unwrap(), role)
    };
    let keys = [
        accepted(ADMIN, Role::Admin, &[]),
        accepted(WRITER, Role::Write, &[]),
        accepted(READER, Role::Read, &[]),
        accepted(OF_KB, Role::Write, &["kb"]),
        accepted(OF_OTHER, Role::Read, &["other", "gone"]),
    ];
    let server = with_keys(&keys, u32::MAX);
    for name in ["kb", "other"] {
        let reply = send(&server, "PUT", &format!("/collections/{name}"), ADMIN, &schema().to_string());
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    server
}

fn send(server: &Server, method: &str, path: &str, key: &str, body: &str) -> Reply {
    let bearer = format!("Bearer {key}");
    server.send(method, path, &[JSON, ("authorization", &bearer)], body.as_bytes())
}

/// Whether a route accepts each kind of key.
fn expected(method: &str, path: &str) -> [(&'static str, bool); 5] {
    let open =
        ["/", "/app.js", "/style.css", "/favicon.svg", "/healthz", "/livez", "/readyz"].contains(&path);
    let names = path.contains("{c}") || path == "/search" || path == "/kb/search";
    let least = match (method, path) {
        _ if open => Role::Read,
        ("PUT" | "DELETE", "/collections/{c}" | "/aliases/{a}") | ("GET", "/backup" | "/doctor") => {
            Role::Admin
        }
        ("POST", "/collections/{c}/search") | ("GET", _) => Role::Read,
        _ => Role::Write,
    };
    let lists = path == "/collections" || path == "/openapi.json";
    [
        (ADMIN, true),
        (WRITER, least <= Role::Write),
        (READER, least <= Role::Read),
        (OF_KB, open || lists || (names && least <= Role::Write)),
        (OF_OTHER, open || lists),
    ]
}

#[test]
fn every_route_requires_its_role() {
    let server = server();
    let api = send(&server, "GET", "/openapi.json", READER, "").ok(200);
    let mut seen = BTreeMap::new();
    for (method, path, _) in operations(&api) {
        let real = path.replace("{c}", "kb").replace("{id}", "none").replace("{a}", "none");
        let real = if real.ends_with("search") && method == "GET" {
            format!("{real}?collection=kb&q=a")
        } else {
            real
        };
        let open = expected(&method, &path).iter().all(|(_, let_in)| *let_in) && !real.contains("kb");
        for (key, let_in) in expected(&method, &path) {
            // The request of an admin would change the results of the others.
            if key == ADMIN && method == "DELETE" && path == "/collections/{c}" {
                continue;
            }
            let reply = send(&server, &method, &real, key, "{}");
            let is = (reply.status != 401 && reply.status != 403, reply.status);
            assert_eq!(is.0, let_in, "{method} {path} with {key}: {}", reply.text());
            if !let_in {
                assert_eq!(is.1, 403, "{method} {path} with {key}");
                reply.problem(403, "forbidden");
            }
        }
        let lists = path == "/collections" || path == "/openapi.json";
        let open = open && !lists;
        for headers in
            [&[][..], &[("x-api-key", "an-unknown-key-of-tests-0123456789")], &[("authorization", "Bearer")]]
        {
            let reply = server.send(&method, &real, headers, b"");
            assert_eq!(reply.status == 401, !open, "{method} {path} with {headers:?}: {}", reply.status);
        }
        // A key in the query string is ignored.
        let join = if real.contains('?') { '&' } else { '?' };
        let reply = server.send(&method, &format!("{real}{join}api_key={ADMIN}"), &[], b"");
        assert_eq!(reply.status == 401, !open, "{method} {path}: {}", reply.status);
        let twice = format!("Bearer {ADMIN}");
        let reply = server.send(&method, &real, &[("authorization", &twice), ("x-api-key", ADMIN)], b"");
        assert_eq!(reply.status == 400, !open, "{method} {path}: {}", reply.status);
        seen.insert(format!("{method} {path}"), ());
    }
    assert!(seen.len() >= 28, "{seen:?}");
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
    assert_eq!(names(OF_KB), ["kb"]);
    assert_eq!(names(OF_OTHER), ["other"]);
    let get = |path: &str| send(&server, "GET", path, OF_KB, "");
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
        send(&server, "POST", &path, OF_KB, &json!([{"id": "a", "title": "apple"}]).to_string())
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
        let problem = send(&server, method, path, OF_OTHER, body).problem(404, "collection-not-found");
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
    let plain = json!({"prefixes": ["shared:"], "fields": [{"name": "title", "kind": "text"}]});
    put("/collections/plain", plain).ok(201);
    put("/collections/plain/documents/kept-private", json!({"title": "a", "year": "soon"})).ok(201);
    let years = json!({"prefixes": ["shared:"], "fields": [{"name": "year", "kind": "numeric"}]});
    put("/collections/years", years).ok(201);
    for key in [ADMIN, WRITER, READER] {
        let notes = send(&server, "GET", "/readyz", key, "").ok(200)["notes"].to_string();
        assert!(notes.contains("years") && notes.contains("kept-private"), "{notes}");
    }
    let bearers = [OF_KB, OF_OTHER, "an-unknown-key-of-tests-0123456789"].map(|key| format!("Bearer {key}"));
    let mut headers: Vec<Vec<(&str, &str)>> =
        bearers.iter().map(|bearer| vec![("authorization", bearer.as_str())]).collect();
    headers.extend([
        vec![],
        vec![("authorization", "Basic x")],
        vec![("x-api-key", ADMIN), ("x-api-key", ADMIN)],
    ]);
    for headers in headers {
        let problem = server.send("GET", "/readyz", &headers, b"").ok(200);
        assert_eq!(problem["ready"], true);
        assert_eq!(problem["notes"], json!(["notes that only a key for all collections can read: 1"]));
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
    let reply = send(&server, "GET", "/stats", ADMIN, "");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    reply.problem(429, "too-many-wrong-keys");
    // An address claimed in a header is ignored.
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", &*bearer), ("x-forwarded-for", "192.0.2.1")];
    server.send("GET", "/stats", &headers, b"").problem(429, "too-many-wrong-keys");
    server.get("/healthz").ok(200);
}
