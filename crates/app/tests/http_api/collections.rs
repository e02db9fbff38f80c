//! Collections and aliases.

use serde_json::{Value, json};

use crate::server::{JSON, Server, schema};

#[test]
fn creates_gets_rebuilds_and_drops_a_collection() {
    let server = Server::start();
    let mut info = server.get("/collections/kb").ok(200);
    assert!(info["memory_bytes"].is_u64(), "{info}");
    info["memory_bytes"] = json!("BYTES");
    insta::assert_json_snapshot!("info", info);
    assert_eq!(server.put("/collections/kb", &schema()).ok(200)["name"], "kb");

    let mut other = schema();
    other["fields"][2] = json!({"name": "category", "kind": "text"});
    let problem = server.put("/collections/kb", &other).ok(409);
    assert!(problem["detail"].as_str().unwrap().contains("category"), "{problem}");
    let info = server.put("/collections/kb?rebuild=true", &other).ok(202);
    assert_eq!(info["rebuilding"], true);

    let list = server.get("/collections").ok(200);
    assert_eq!(list["collections"].as_array().unwrap().len(), 1);
    assert_eq!(server.delete("/collections/kb").ok(204), Value::Null);
    server.delete("/collections/kb").problem(404, "collection-not-found");
    server.get("/collections/kb").problem(404, "collection-not-found");
    assert_eq!(server.get("/collections").ok(200), json!({"collections": []}));
}

#[test]
fn dropping_a_collection_keeps_or_deletes_its_documents() {
    let server = Server::start();
    let documents = |server: &Server| server.get("/stats").ok(200)["documents"].as_u64().unwrap();
    server.put("/collections/kb/documents/a", &json!({"title": "x"})).ok(201);
    server.delete("/collections/kb?documents=keep").ok(204);
    assert_eq!(documents(&server), 1);
    server.put("/collections/kb", &schema()).ok(201);
    assert_eq!(server.get("/collections/kb/documents/a").ok(200)["fields"]["title"], "x");
    server.delete("/collections/kb?documents=burn").problem(400, "parameter");
    server.delete("/collections/kb?documents=delete").ok(204);
    assert_eq!(documents(&server), 0);
}

#[test]
fn aliases_refer_to_existing_collections() {
    let server = Server::start();
    let alias = server.put("/aliases/live", &json!({"collection": "kb"})).ok(200);
    assert_eq!(alias, json!({"alias": "live", "collection": "kb"}));
    assert_eq!(server.get("/collections/live").ok(200)["name"], "kb");
    server.put("/aliases/current", &json!({"collection": "kb"})).ok(200);
    assert_eq!(
        server.get("/aliases").ok(200),
        json!({"aliases": [{"alias": "current", "collection": "kb"}, {"alias": "live", "collection": "kb"}]})
    );
    server.delete("/aliases/current").ok(204);
    assert_eq!(server.get("/collections/kb").ok(200)["aliases"], json!(["live"]));
    server.put("/aliases/live", &json!({"collection": "nowhere"})).problem(404, "collection-not-found");
    server.put("/aliases/live", &json!({"name": "kb"})).problem(422, "json-structure");
    server.delete("/aliases/live").ok(204);
    assert_eq!(server.delete("/aliases/live").status, 404);
}

#[test]
fn rejects_invalid_schemas_with_a_code() {
    let server = Server::start();
    let put = |body: Value| server.put("/collections/new", &body);
    put(json!({"field": []})).problem(422, "json-structure");
    put(json!({"fields": [{"name": "v", "kind": "vector"}]})).problem(422, "schema");
    let embed = json!({"fields": ["title"], "model": "../tiny"});
    put(json!({"fields": [{"name": "v", "kind": "vector", "embed": embed}]})).problem(422, "model-name");
    let embed = json!({"fields": ["title"], "model": "missing"});
    let fields =
        json!([{"name": "title", "kind": "text"}, {"name": "v", "kind": "vector", "dim": 3, "embed": embed}]);
    let problem = put(json!({"fields": fields})).ok(503);
    assert!(problem["detail"].as_str().unwrap().contains("missing"), "{problem}");
    put(json!({"fields": [{"name": "a", "kind": "text"}, {"name": "a", "kind": "tag"}]})).ok(422);
    put(json!({"fields": [{"name": "v", "kind": "vector", "dim": 0}]})).ok(422);
    put(json!({"fields": [{"name": "v", "kind": "vector", "dim": 3, "m": 100_000}]})).ok(422);
    server.put("/collections/a%20b", &schema()).ok(422);
    server.put(&format!("/collections/{}", "x".repeat(129)), &schema()).ok(422);
    server.send("PUT", "/collections/new", &[JSON], b"{").problem(400, "json");
    server.send("PUT", "/collections/new", &[], b"{}").problem(415, "content-type");
    server.get("/collections/new").problem(404, "collection-not-found");
}

#[test]
fn the_default_dimension_is_that_of_the_model() {
    let server = Server::start();
    let embed = json!({"fields": ["title"], "model": "tiny"});
    let fields = json!([{"name": "title", "kind": "text"}, {"name": "v", "kind": "vector", "embed": embed}]);
    let info = server.put("/collections/new", &json!({"fields": fields})).ok(201);
    assert_eq!(info["schema"]["fields"][1]["dim"], testing::tiny_model::DIM);
}

#[test]
fn an_empty_schema_requires_the_default_model() {
    let server = Server::start();
    for response in
        [server.put("/collections/new", &json!({})), server.send("PUT", "/collections/new", &[], b"")]
    {
        let problem = response.ok(503);
        assert!(problem["detail"].as_str().unwrap().contains("all-MiniLM-L6-v2"), "{problem}");
    }
}

#[test]
fn rejects_an_array_in_place_of_an_object() {
    let server = Server::with_articles();
    let embed = json!([["title"], "tiny"]);
    for (method, path, body) in [
        ("PUT", "/collections/new", json!([null, null])),
        ("PUT", "/collections/new", json!([["new:"], null, []])),
        ("PUT", "/collections/new", json!({"fields": [["title", "text"]]})),
        ("PUT", "/collections/new", json!({"fields": [{"name": "v", "kind": "vector", "embed": embed}]})),
        ("PUT", "/aliases/other", json!(["kb"])),
        ("POST", "/collections/kb/search", json!(["apple"])),
        ("POST", "/collections/kb/search", json!({"searches": [["apple"]]})),
        ("POST", "/collections/kb/delete", json!(["*"])),
    ] {
        let response = server.send(method, path, &[JSON], body.to_string().as_bytes());
        let problem = response.problem(422, "json-structure");
        assert!(problem["detail"].as_str().unwrap().contains("expected an object"), "{problem}");
    }
    server.get("/collections/new").problem(404, "collection-not-found");
}
