//! Documents without a model: collections whose vectors come with the documents.

use std::collections::BTreeMap;

use axum::{body::Body, http::Request};
use nearfield::{
    config::{Flags, Settings},
    service::Service,
};
use serde_json::{Value, json};
use server::http::{self, HttpSettings};
use tower::ServiceExt as _;

use crate::program::TestHome;
#[cfg(unix)]
use crate::program::signal;

fn settings(home: &TestHome) -> Settings {
    let flags = Flags { home: Some(home.path("")), ..Flags::default() };
    Settings::from_sources(&flags, None, []).unwrap()
}

/// One request to the routes over the store of this home, as a program that embeds the library would send it.
pub(crate) fn request(home: &TestHome, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let service = Service::open(settings(home).service()).unwrap();
    let router = http::router(service.clone(), HttpSettings::default());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, body) = runtime.block_on(async {
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap())
    });
    service.close();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Creates a collection.
fn create_collection(home: &TestHome, name: &str, schema: &Value) {
    assert_eq!(request(home, "PUT", &format!("/collections/{name}"), schema).0, 201);
}

fn schema() -> Value {
    json!({"fields": [
        {"name": "name", "kind": "text"},
        {"name": "color", "kind": "tag"},
        {"name": "size", "kind": "numeric"},
        {"name": "place", "kind": "vector", "dim": 2, "metric": "l2"},
    ]})
}

/// A document; the files in `data_formats` contain documents that this function returned.
pub(crate) fn document(number: usize) -> Value {
    json!({
        "id": format!("thing/{number}"),
        "name": format!("Thing \"{number}\"\nof many, ä"),
        "color": if number.is_multiple_of(2) { "red" } else { "blue" },
        "size": number,
        "place": [number, 1],
    })
}

/// Writes a file with this many documents; returns its path.
pub(crate) fn write_documents(home: &TestHome, count: usize) -> String {
    home.write("things.jsonl", (0..count).map(|number| format!("{}\n", document(number))).collect::<String>())
}

/// A home directory with this many indexed documents, and the path of the file they come from.
pub(crate) fn home_with_documents(count: usize) -> (TestHome, String) {
    let home = TestHome::new();
    create_collection(&home, "things", &schema());
    let file = write_documents(&home, count);
    let out = home.ok(&["index", &file, "-c", "things", "--batch-size", "7"]);
    assert_eq!(out, format!("rows in {count} = indexed {count} + unchanged 0 + rejected 0\n"));
    (home, file)
}

/// Exported documents by id.
fn exported(text: &str) -> BTreeMap<String, Value> {
    let document = |line| serde_json::from_str::<Value>(line).unwrap();
    text.lines().map(document).map(|value| (value["id"].as_str().unwrap().to_owned(), value)).collect()
}

#[test]
fn indexes_gets_and_counts_documents() {
    let (home, file) = home_with_documents(30);
    assert_eq!(
        home.ok(&["index", &file, "-c", "things"]),
        "rows in 30 = indexed 0 + unchanged 30 + rejected 0\n"
    );
    home.write("things.jsonl", format!("{}\n{}\n", document(3), json!({"id": "thing/4", "name": "new"})));
    assert_eq!(
        home.ok(&["index", &file, "-c", "things"]),
        "rows in 2 = indexed 1 + unchanged 1 + rejected 0\n"
    );

    let collections = home.json(&["collections"]);
    assert_eq!(collections["collections"][0]["name"], "things");
    assert_eq!(collections["collections"][0]["documents"], 30);
    assert!(home.ok(&["collections"]).contains("things"));
    assert_eq!(home.json(&["stats"])["documents"], 30);
    assert!(home.ok(&["stats"]).contains("documents    30"));

    let document = home.json(&["get", "thing/3"]);
    assert_eq!(document["fields"], json!({"name": "Thing \"3\"\nof many, ä", "color": ["blue"], "size": 3}));
    assert!(home.json(&["get", "thing/3", "--vectors"])["fields"]["place"].is_object());
    let text = home.ok(&["get", "thing/3"]);
    assert!(text.contains("name: Thing \"3\"\nof many, ä\n") && text.contains("color: blue\n"), "{text}");
    home.fails(3, &["get", "thing/300"], &["thing/300"]);
    home.fails(3, &["get", "x", "-c", "nothings"], &["nothings"]);
}

#[test]
fn exported_documents_can_be_indexed_again() {
    let (home, _) = home_with_documents(25);
    let documents = exported(&home.ok(&["export", "--vectors"]));
    assert_eq!(documents.len(), 25);
    home.ok(&["export", "--vectors", "-o", "exported.jsonl"]);
    assert_eq!(exported(&home.read("exported.jsonl")), documents);
    let temporary_files: Vec<String> = std::fs::read_dir(home.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("export") && name != "exported.jsonl")
        .collect();
    assert!(temporary_files.is_empty(), "{temporary_files:?}");

    let out = home.ok(&["index", "exported.jsonl", "-c", "things"]);
    assert_eq!(out, "rows in 25 = indexed 0 + unchanged 25 + rejected 0\n");

    // No model computes these vectors.
    assert_eq!(exported(&home.ok(&["export"])), documents);
    let warned = home.run(&["export", "--format", "csv"]).err;
    assert!(warned.contains("\"place\"") && warned.contains("JSONL keeps them"), "{warned}");

    let mut red = exported(&home.ok(&["export", "--filter", "@color:{red} @size:[10 +inf]"]));
    for document in red.values_mut() {
        assert!(document.as_object_mut().unwrap().remove("place").is_some());
    }
    assert_eq!(red.len(), 8);
    assert_eq!(
        red["thing/10"],
        json!({"id": "thing/10", "name": "Thing \"10\"\nof many, ä", "color": ["red"], "size": 10})
    );
    home.fails(1, &["export", "--filter", "@color:{red"], &["filter"]);

    home.ok(&["export", "--format", "csv", "-o", "things.csv"]);
    let mut table = csv::Reader::from_path(home.path("things.csv")).unwrap();
    assert_eq!(table.headers().unwrap(), vec!["id", "name", "color", "size"]);
    let records: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 25);
    assert!(records.contains(&csv::StringRecord::from(vec![
        "thing/3",
        "Thing \"3\"\nof many, ä",
        "blue",
        "3"
    ])));
}

#[test]
fn deletes_documents_by_id_and_by_filter() {
    let (home, _) = home_with_documents(20);
    assert_eq!(home.ok(&["delete", "thing/1", "thing/2"]), "deleted 2\n");
    let output = home.fails(3, &["delete", "thing/1", "thing/3"], &["thing/1"]);
    assert_eq!(output.out, "deleted 1\n");
    let deleted = home.json(&["delete", "--filter", "@color:{red}", "--yes"]);
    assert_eq!(deleted["deleted"], 9);
    assert_eq!(home.json(&["collections"])["collections"][0]["documents"], 8);
    home.fails(2, &["delete", "--filter", "*"], &["--yes"]);
    assert_eq!(home.ok(&["delete", "--filter", "*", "--yes"]), "deleted 8\n");
}

#[test]
fn rejects_rows_that_violate_the_schema_individually() {
    let (home, _) = home_with_documents(2);
    let file = home.write(
        "bad.jsonl",
        "{\"id\":\"a\",\"place\":[1,2,3]}\n{\"id\":\"b\",\"size\":\"many\"}\n{\"id\":\"c\",\"size\":5}\n{\"id\":\"\\u0007\"}\n",
    );
    let args = ["index", &file, "-c", "things", "--on-error", "skip", "--rejects", "rejects"];
    let output = home.run(&args);
    assert_eq!(output.out, "rows in 4 = indexed 1 + unchanged 0 + rejected 3\n", "{output:?}");
    assert!(
        output.err.contains("bad.jsonl:1 (a)") && output.err.contains("vector dimensions do not match"),
        "{output:?}"
    );
    assert_eq!(home.read("rejects").lines().count(), 3);
}

#[test]
fn exports_the_remaining_time_to_live() {
    let (home, _) = home_with_documents(1);
    let file = home.write("short.jsonl", "{\"id\":\"short\",\"name\":\"x\"}\n");
    home.ok(&["index", &file, "-c", "things", "--ttl", "1h"]);
    let documents = exported(&home.ok(&["export"]));
    let ttl_s = documents["short"]["ttl_s"].as_f64().unwrap();
    assert!(ttl_s > 0.0 && ttl_s <= 3600.0, "{ttl_s}");
    assert!(documents["thing/0"].get("ttl_s").is_none());
}

#[test]
fn requires_a_collection_name_if_there_are_several() {
    let (home, _) = home_with_documents(1);
    create_collection(&home, "more", &schema());
    home.fails(2, &["get", "thing/0"], &["--collection", "more", "things"]);
    home.ok(&["get", "thing/0", "-c", "things"]);
}

#[test]
fn reports_the_path_of_a_data_directory_in_use() {
    let (home, _) = home_with_documents(1);
    let service = Service::open(settings(&home).service()).unwrap();
    let data = home.path("data").to_str().unwrap().to_owned();
    home.fails(4, &["stats"], &[&data, "in use"]);
    home.write("data/server.json", "{\"url\":\"http://127.0.0.1:1\",\"pid\":4711}");
    home.fails(4, &["stats"], &[&data, "4711", "http://127.0.0.1:1"]);
    service.close();
    drop(service);
    // A file left behind by a killed server is ignored.
    home.ok(&["stats"]);
}

#[cfg(unix)]
#[test]
fn uses_a_running_server() {
    let (home, file) = home_with_documents(5);
    let mut server = home.serve(&[]);
    let address: Value = serde_json::from_str(&home.read("data/server.json")).unwrap();
    let output = home.run(&["stats"]);
    assert_eq!(address["url"], *server.url);
    assert!(output.err.contains(&server.url), "{output:?}");
    assert_eq!(
        home.ok(&["index", &file, "-c", "things"]),
        "rows in 5 = indexed 0 + unchanged 5 + rejected 0\n"
    );
    assert_eq!(exported(&home.ok(&["export"])).len(), 5);
    home.fails(3, &["get", "none"], &["none"]);
    signal(&server.child, "TERM");
    std::io::copy(&mut server.log, &mut std::io::sink()).unwrap();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(!home.path("data/server.json").exists());
    assert!(!home.run(&["stats"]).err.contains("http://"));
}

#[test]
fn doctor_reports_before_the_first_search() {
    let (home, _) = home_with_documents(3);
    assert!(home.ok(&["doctor"]).starts_with("no searches yet"));
    let report = home.json(&["doctor"]);
    assert_eq!((&report["searches"], &report["stores"]), (&json!(0), &json!([])), "{report}");
    assert_eq!(report["stages"].as_array().unwrap().len(), 6);
}
