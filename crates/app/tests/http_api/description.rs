//! `/openapi.json`, `/metrics`, health and the page.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::server::{JSON, Server};

/// All operations of the description: method, path and operation.
pub(crate) fn operations(api: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if ["get", "put", "post", "patch", "delete"].contains(&method.as_str()) {
                operations.push((method.to_uppercase(), path.clone(), operation.clone()));
            }
        }
    }
    operations
}

#[test]
fn the_description_lists_exactly_the_existing_routes() {
    let server = Server::with_articles();
    let response = server.get("/openapi.json");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let api = response.ok(200);
    let documented: BTreeSet<String> =
        operations(&api).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let expected = [
        "GET /search",
        "GET /kb/search",
        "GET /collections",
        "PUT /collections/{c}",
        "GET /collections/{c}",
        "DELETE /collections/{c}",
        "GET /aliases",
        "PUT /aliases/{a}",
        "DELETE /aliases/{a}",
        "GET /stats",
        "GET /backup",
        "GET /doctor",
        "POST /collections/{c}/documents",
        "GET /collections/{c}/documents",
        "GET /collections/{c}/documents/{id}",
        "PUT /collections/{c}/documents/{id}",
        "PATCH /collections/{c}/documents/{id}",
        "DELETE /collections/{c}/documents/{id}",
        "GET /collections/{c}/count",
        "POST /collections/{c}/delete",
        "POST /collections/{c}/search",
        "GET /healthz",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
        "GET /openapi.json",
        "GET /",
        "GET /app.js",
        "GET /style.css",
        "GET /favicon.svg",
    ];
    assert_eq!(documented, expected.map(str::to_owned).into_iter().collect());
    for (method, path, _) in operations(&api) {
        let path = path.replace("{c}", "kb").replace("{id}", "kb-1").replace("{a}", "alias");
        let response = server.send(&method, &path, &[JSON], b"");
        let problem =
            (response.header("content-type") == Some("application/problem+json")).then(|| response.json());
        let code = problem.as_ref().map_or("", |problem| problem["code"].as_str().unwrap());
        assert!(!["path-not-found", "method-not-allowed"].contains(&code), "{method} {path}: {problem:?}");
        assert_ne!(response.status, 500, "{method} {path}: {response:?}");
    }
}

#[test]
fn the_description_is_consistent() {
    let api = Server::start().get("/openapi.json").ok(200);
    assert!(api["openapi"].as_str().unwrap().starts_with("3."), "{}", api["openapi"]);
    let text = api.to_string();
    for reference in text.split("\"$ref\":\"#/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let target = reference.split('/').fold(&api, |value, part| &value[part]);
        assert!(target.is_object(), "{reference} does not exist");
    }
    for (method, path, operation) in operations(&api) {
        let error_schema =
            &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(error_schema, "#/components/schemas/Problem", "{method} {path}");
        let has_success =
            operation["responses"].as_object().unwrap().keys().any(|status| status.starts_with('2'));
        assert!(has_success, "{method} {path}");
        if ["PUT", "PATCH", "POST"].contains(&method.as_str()) {
            assert!(operation["requestBody"]["content"].is_object(), "{method} {path}");
        }
        for name in path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()) {
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(
                parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "path"),
                "{path}: {name}"
            );
        }
        let is_public = operation["security"] == serde_json::json!([{}]);
        let public = ["/", "/app.js", "/style.css", "/favicon.svg", "/healthz", "/livez", "/readyz"];
        assert_eq!(is_public, public.contains(&path.as_str()), "{method} {path}: {}", operation["security"]);
    }
    assert!(api["components"]["securitySchemes"]["bearer"].is_object());
    assert!(api["security"].as_array().is_some_and(|schemes| schemes.len() == 2), "{}", api["security"]);
}

#[test]
fn reports_health() {
    let server = Server::start();
    assert_eq!(server.get("/healthz").ok(200)["status"], "ok");
    assert_eq!(server.get("/livez").ok(200)["status"], "ok");
    let ready = server.get("/readyz").ok(200);
    assert_eq!(ready["ready"], true);
    assert!(ready["notes"].is_array());
}

#[test]
fn reports_stats() {
    let server = Server::with_articles();
    let stats = server.get("/stats").ok(200);
    assert_eq!(stats["documents"], 4);
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    for name in ["last_seq", "file_bytes", "commits"] {
        assert!(stats[name].as_u64().unwrap() > 0, "{name}: {stats}");
    }
    assert_eq!((&stats["durability"], &stats["durable_seq"]), (&json!("always"), &stats["last_seq"]));
    server.get("/stats?all=1").problem(400, "parameter-unknown");
}

#[test]
fn records_metrics_of_requests() {
    // There is one recorder per process. This test installs it, and no other test reads it.
    let handle = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    server::http::describe_metrics();
    let mut settings = server::serve::ConnectionSettings::default();
    settings.http.metrics = Some(handle);
    let server = Server::with(settings);
    server.get("/measured/nowhere").problem(404, "path-not-found");
    server.send("BREW", "/stats", &[], b"").problem(405, "method-not-allowed");
    let response = server.get("/metrics");
    assert!(response.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = response.text();
    for line in [
        "# TYPE nearfield_http_requests_total counter",
        "# TYPE nearfield_http_request_seconds",
        "nearfield_http_requests_total{method=\"GET\",route=\"(none)\",status=\"404\"}",
        "nearfield_http_requests_total{method=\"OTHER\",route=\"/stats\",status=\"405\"}",
        "nearfield_http_requests_in_flight",
        "nearfield_http_connections",
        "nearfield_documents",
        "nearfield_store_file_bytes",
        "nearfield_changes_not_durable 0",
        "nearfield_ready 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("measured"), "arbitrary paths must not become labels");
}

#[test]
fn serves_the_page() {
    let server = Server::start();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let response = server.get(path);
        assert_eq!((response.status, response.header("content-type")), (200, Some(content_type)), "{path}");
        assert!(!response.body.is_empty());
    }
}
