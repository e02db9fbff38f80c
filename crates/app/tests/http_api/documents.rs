//! Operations on single documents: ids, preconditions, fields and expiry.

use serde_json::{Value, json};

use crate::server::{JSON, NDJSON, Server, schema};

const DOC: &str = "/collections/kb/documents/a";

#[test]
fn puts_gets_patches_and_deletes_a_document() {
    let server = Server::start();
    let response =
        server.put(DOC, &json!({"title": "apple", "category": ["x", "y"], "year": 2024, "extra": "kept"}));
    let etag = response.header("etag").unwrap().to_owned();
    let created = response.ok(201);
    assert_eq!(created["status"], "created");
    assert_eq!(etag, format!("\"{}\"", created["seq"]));

    let response = server.get(DOC);
    assert_eq!(response.header("etag"), Some(etag.as_str()));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let document = response.ok(200);
    let fields = json!({"title": "apple", "category": ["x", "y"], "year": 2024, "extra": "kept"});
    assert_eq!(document, json!({"id": "a", "seq": created["seq"], "fields": fields}));

    let repeated =
        server.put(DOC, &json!({"title": "apple", "category": ["x", "y"], "year": 2024, "extra": "kept"}));
    assert_eq!(repeated.ok(200)["status"], "unchanged");
    let patched = server.patch(DOC, &json!({"title": "pear", "extra": null})).ok(200);
    assert_eq!(patched["status"], "updated");
    let fields = server.get(DOC).ok(200)["fields"].clone();
    assert_eq!(fields, json!({"title": "pear", "category": ["x", "y"], "year": 2024}));

    assert_eq!(server.delete(DOC).ok(204), Value::Null);
    server.delete(DOC).problem(404, "document-not-found");
    server.get(DOC).problem(404, "document-not-found");
    server.patch(DOC, &json!({"title": "x"})).problem(404, "document-not-found");
}

#[test]
fn failed_preconditions_return_412() {
    let server = Server::start();
    let put = |precondition: (&str, &str)| {
        server.send("PUT", DOC, &[JSON, precondition], b"{\"title\": \"apple\"}")
    };
    put(("if-match", "*")).problem(412, "document-not-found");
    let first = put(("if-none-match", "*")).ok(201)["seq"].as_u64().unwrap();
    assert_eq!(put(("if-none-match", "*")).ok(412)["title"], "Precondition Failed");
    put(("if-match", "*")).ok(200);
    let response =
        server.send("PATCH", DOC, &[JSON, ("if-match", &format!("\"{first}\""))], b"{\"title\": \"pear\"}");
    let second = response.ok(200)["seq"].as_u64().unwrap();
    assert!(second > first);
    let stale = [JSON, ("if-match", &*format!("\"{first}\""))];
    server.send("PATCH", DOC, &stale, b"{\"title\": \"plum\"}").ok(412);
    server.send("PUT", DOC, &stale, b"{\"title\": \"plum\"}").ok(412);
    server.send("DELETE", DOC, &stale[1..], b"").ok(412);
    assert_eq!(server.get(DOC).ok(200)["fields"]["title"], "pear");
    for bad in ["5", "W/\"5\"", "\"five\"", "\"1\", \"2\""] {
        put(("if-match", bad)).problem(400, "header");
    }
    server.send("DELETE", DOC, &[("if-none-match", "*")], b"").problem(400, "header");
    let current = format!("\"{second}\"");
    let response = server.send("GET", DOC, &[("if-none-match", &current)], b"");
    assert_eq!((response.status, response.body.len()), (304, 0));
    assert_eq!(response.header("etag"), Some(current.as_str()));
    assert_eq!(server.send("GET", DOC, &[("if-none-match", &format!("W/{current}"))], b"").status, 304);
    server.send("GET", DOC, &[("if-none-match", "\"0\"")], b"").ok(200);
    server.send("DELETE", DOC, &[("if-match", &current)], b"").ok(204);
}

#[test]
fn if_match_star_finds_an_existing_document_during_concurrent_writes() {
    const WRITERS: usize = 4;
    let server = Server::start();
    server.put(DOC, &json!({"title": "apple"})).ok(201);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let server = &server;
            scope.spawn(move || {
                for number in 0..30 {
                    let body = json!({"title": "apple", "year": number, "writer": format!("{writer}")});
                    let method = ["PUT", "PATCH"][number % 2];
                    let headers = [JSON, ("if-match", "*")];
                    server.send(method, DOC, &headers, body.to_string().as_bytes()).ok(200);
                }
            });
        }
    });
    server.send("DELETE", DOC, &[("if-match", "*")], b"").ok(204);
    for method in ["PUT", "PATCH", "DELETE"] {
        let response = server.send(method, DOC, &[JSON, ("if-match", "*")], b"{\"title\": \"apple\"}");
        let problem = response.problem(412, "document-not-found");
        assert!(problem["detail"].as_str().unwrap().contains("If-Match: *"), "{problem}");
    }
    server.get(DOC).problem(404, "document-not-found");
}

#[test]
fn ids_may_contain_any_text_and_never_change_the_path() {
    let server = Server::start();
    for (escaped, id) in [
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("..", ".."),
        ("%2E%2E", ".."),
        ("a%2Fb", "a/b"),
        ("a%20b%3Fc%23d", "a b?c#d"),
        ("caf%C3%A9", "caf\u{e9}"),
        ("100%25", "100%"),
        ("%F0%9F%A6%80", "\u{1F980}"),
    ] {
        let path = format!("/collections/kb/documents/{escaped}");
        server.put(&path, &json!({"title": id, "id": id})).ok(if id == ".." && escaped == "%2E%2E" {
            200
        } else {
            201
        });
        let document = server.get(&path).ok(200);
        assert_eq!((&document["id"], &document["fields"]["title"]), (&json!(id), &json!(id)), "{escaped}");
    }
    for bad in ["%00", "a%0Ab", "%7F", &"x".repeat(513)] {
        server.put(&format!("/collections/kb/documents/{bad}"), &json!({})).ok(422);
    }
    server.put("/collections/kb/documents/%ff", &json!({})).problem(400, "path");
    server.get("/collections/kb/documents/a/b").problem(404, "path-not-found");
    server.get("/collections/kb/documents/").problem(404, "path-not-found");
    server.get("/collections/..%2F..%2Fetc/documents/a").problem(404, "collection-not-found");
    server.put(DOC, &json!({"id": "b", "title": "x"})).problem(422, "id-mismatch");
}

#[test]
fn errors_name_the_field_with_the_invalid_value() {
    let server = Server::start();
    for (document, field) in [
        (json!({"title": true}), "title"),
        (json!({"title": null}), "title"),
        (json!({"title": {"a": 1}}), "title"),
        (json!({"title": [1, "a"]}), "title"),
        (json!({"title": "a", "year": "soon"}), "year"),
        (json!({"year": [1, 2]}), "year"),
        (json!({"category": ["a,b"]}), "category"),
        (json!({"embedding": [1, 2, 3]}), "embedding"),
        (json!({"embedding": {"base64": "AAAA"}}), "embedding"),
        (json!({"embedding": vec![0; testing::tiny_model::DIM]}), "embedding"),
        (json!({"ttl_s": 0}), "ttl_s"),
        (json!({"ttl_s": "1"}), "ttl_s"),
    ] {
        let problem = server.put(DOC, &document).ok(422);
        assert_eq!(problem["at"], field, "{document}: {problem}");
    }
    server.send("PUT", DOC, &[JSON], b"{\"a\": 1, \"a\": 2}").problem(422, "field-repeated");
    server.send("PUT", DOC, &[JSON], b"[1]").problem(422, "json-structure");
    server.send("PUT", DOC, &[JSON], b"{\"a\": ").problem(400, "json");
    server.send("PUT", DOC, &[JSON], b"").problem(400, "json");
    server.send("PUT", DOC, &[], b"{}").problem(415, "content-type");
    server.send("PUT", DOC, &[("content-type", "text/plain")], b"{}").problem(415, "content-type");
    server.send("PUT", DOC, &[("content-type", "application/x-ndjson")], b"{}").problem(415, "content-type");
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    server.send("PUT", DOC, &[JSON], deep.as_bytes()).problem(422, "field-value");
    server.get(DOC).problem(404, "document-not-found");
}

#[test]
fn returns_bytes_and_vectors_unchanged() {
    let server = Server::start();
    let vector: Vec<f32> = (0..testing::tiny_model::DIM).map(|at| at as f32 + 0.5).collect();
    let blob: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    use base64::Engine;
    let blob = json!({"base64": base64::prelude::BASE64_STANDARD.encode(blob)});
    server.put(DOC, &json!({"raw": {"base64": "/wA="}, "embedding": vector})).ok(201);
    assert_eq!(server.get(DOC).ok(200)["fields"], json!({"raw": {"base64": "/wA="}}));
    let document = server.get(&format!("{DOC}?vectors=true")).ok(200);
    assert_eq!(document["fields"], json!({"raw": {"base64": "/wA="}, "embedding": blob}));
    server.get(&format!("{DOC}?vector=true")).problem(400, "parameter-unknown");
    let search = json!({"vector": blob, "k": 1, "fields": ["embedding"]});
    let response = server.post("/collections/kb/search", &search).ok(200);
    assert_eq!(response["results"][0]["fields"], json!({"embedding": blob}));
}

#[test]
fn sets_and_removes_a_time_to_live() {
    let server = Server::start();
    server.put(DOC, &json!({"title": "x", "ttl_s": 3600})).ok(201);
    let expires_at = server.get(DOC).ok(200)["expires_at_ms"].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(expires_at > now && expires_at <= now + 3_600_000, "{expires_at} {now}");
    server.patch(DOC, &json!({"ttl_s": null})).ok(200);
    assert_eq!(server.get(DOC).ok(200)["expires_at_ms"], Value::Null);
}

#[test]
fn scrolls_counts_and_deletes_the_documents_of_a_collection() {
    let server = Server::start();
    let documents: Vec<Value> = (0..25)
        .map(|n| json!({"id": n, "title": "apple", "category": if n % 5 == 0 { "old" } else { "new" }}))
        .collect();
    server.post("/collections/kb/documents", &json!({"documents": documents})).ok(200);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/collections/kb/documents?limit=10{after}")).ok(200);
        seen.extend(page["documents"].as_array().unwrap().iter().map(|document| document["id"].clone()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..25).map(|n| json!(n.to_string())).collect::<Vec<_>>());
    let page = server.get("/collections/kb/documents?filter=%40category%3A%7Bold%7D").ok(200);
    assert_eq!(page["documents"].as_array().unwrap().len(), 5);
    assert_eq!(server.get("/collections/kb/count").ok(200), json!({"count": 25}));
    assert_eq!(
        server.get("/collections/kb/count?filter=%40category%3A%7Bold%7D").ok(200),
        json!({"count": 5})
    );
    server.get("/collections/kb/documents?limit=1001").problem(422, "limit");
    server.get("/collections/kb/documents?limit=0").problem(422, "limit");
    server.get("/collections/kb/documents?after=x").problem(422, "cursor");
    server.get("/collections/kb/count?filter=%40category%3A%7B").ok(422);

    let delete = |body: Value| server.post("/collections/kb/delete", &body);
    delete(json!({})).problem(422, "json-structure");
    delete(json!({"filter": " "})).problem(422, "filter");
    assert_eq!(delete(json!({"filter": "@category:{old}"})).ok(200), json!({"deleted": 5}));
    assert_eq!(delete(json!({"filter": "*"})).ok(200), json!({"deleted": 20}));
    assert_eq!(server.get("/collections/kb/count").ok(200), json!({"count": 0}));
}

#[test]
fn requires_an_existing_collection() {
    let server = Server::start();
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        let response = server.send(method, "/collections/nowhere/documents/a", &[JSON], b"{}");
        response.problem(404, "collection-not-found");
    }
    server.put("/collections/other", &schema()).ok(201);
    server.put("/aliases/latest", &json!({"collection": "other"})).ok(200);
    server.put("/collections/latest/documents/a", &json!({"title": "by alias"})).ok(201);
    assert_eq!(server.get("/collections/other/documents/a").ok(200)["fields"]["title"], "by alias");
}

#[test]
fn a_deletion_beyond_the_time_limit_reports_its_progress_and_can_be_repeated() {
    const DOCUMENTS: u64 = 20_000;
    let server = Server::start();
    server.put("/collections/things", &json!({"fields": [{"name": "n", "kind": "numeric"}]})).ok(201);
    let lines: String = (0..DOCUMENTS).map(|id| format!("{{\"id\":{id},\"n\":{id}}}\n")).collect();
    let written = server.send("POST", "/collections/things/documents", &[NDJSON], lines.as_bytes()).ok(200);
    assert_eq!(written["created"], DOCUMENTS);
    let count = || server.get("/collections/things/count").ok(200)["count"].as_u64().unwrap();
    let (mut left, mut ms, mut parts) = (DOCUMENTS, 1, 0);
    loop {
        let limit = ms.to_string();
        let headers = [JSON, ("x-timeout-ms", &*limit)];
        let response = server.send("POST", "/collections/things/delete", &headers, b"{\"filter\":\"*\"}");
        if response.status == 200 {
            left -= response.json()["deleted"].as_u64().unwrap();
            break;
        }
        let problem = response.problem(504, "deadline");
        match problem["deleted"].as_u64() {
            Some(deleted) => {
                parts += 1;
                left -= deleted;
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains(&format!("{deleted} documents were deleted; repeat")), "{problem}");
            }
            // Too short for a single page.
            None => ms *= 2,
        }
        assert_eq!(count(), left);
    }
    assert_eq!((left, count()), (0, 0));
    assert!(parts > 0, "everything was deleted at once in {ms} ms");
}
