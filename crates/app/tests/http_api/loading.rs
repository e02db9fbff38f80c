//! Writing many documents: JSON, NDJSON, gzip.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::{
    client::{Response, request},
    server::{JSON, NDJSON, Server},
};

const PATH: &str = "/collections/kb/documents";
const STREAMED: (&str, &str) = ("accept", "application/x-ndjson");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn count(server: &Server) -> Value {
    server.get("/collections/kb/count").ok(200)["count"].clone()
}

#[test]
fn accepts_a_document_an_array_and_a_wrapped_array() {
    let server = Server::start();
    let one = server.post(PATH, &json!({"id": "a", "title": "apple"})).ok(200);
    assert_eq!(one["results"][0]["status"], "created");
    assert_eq!((&one["created"], &one["errors"]), (&json!(1), &json!(0)));
    let array =
        json!([{"id": "a", "title": "apple"}, {"id": 7, "title": "pear"}, {"id": "a", "title": "plum"}]);
    let response = server.post(PATH, &array).ok(200);
    let results: Vec<_> =
        response["results"].as_array().unwrap().iter().map(|r| (&r["id"], &r["status"])).collect();
    assert_eq!(
        results,
        [
            (&json!("a"), &json!("unchanged")),
            (&json!("7"), &json!("created")),
            (&json!("a"), &json!("updated"))
        ]
    );
    let wrapped = server.post(PATH, &json!({"documents": [{"id": "c", "title": "fig"}]})).ok(200);
    assert_eq!(wrapped["created"], 1);
    assert_eq!(server.post(PATH, &json!([])).ok(200)["results"], json!([]));
    assert_eq!(server.post(PATH, &json!({"documents": []})).ok(200)["results"], json!([]));
    assert_eq!(count(&server), 3);
}

#[test]
fn rejects_only_the_invalid_documents_of_a_batch() {
    let server = Server::start();
    let response = server
        .post(PATH, &json!([{"id": "a", "title": "apple"}, {"title": "no id"}, 7, {"id": "b", "open": true}, {"id": "c"}]))
        .ok(200);
    let codes: Vec<_> =
        response["results"].as_array().unwrap().iter().map(|r| r["error"]["code"].clone()).collect();
    assert_eq!(codes[1..4], [json!("id-missing"), json!("document-type"), json!("field-value")]);
    assert_eq!(response["results"][3]["id"], "b");
    assert_eq!(response["results"][0]["status"], "created");
    assert!(response["errors"].as_u64().unwrap() >= 3, "{response}");

    server.post(PATH, &json!({"title": "no id"})).problem(422, "id-missing");
    server.post(PATH, &json!({"documents": [], "more": 1})).problem(422, "id-missing");
    server.post(PATH, &json!({"documents": 7})).problem(422, "json-structure");
    server.post(PATH, &json!("text")).problem(422, "json-structure");
    server.send("POST", PATH, &[JSON], b"[{\"id\": 1},").problem(400, "json");
    server.post("/collections/nowhere/documents", &json!([{"id": 1}])).problem(404, "collection-not-found");
    let many: Vec<Value> = (0..10_001).map(|id| json!({"id": id})).collect();
    for body in [json!(many), json!({"documents": many})] {
        let problem = server.post(PATH, &body).problem(422, "too-many-documents");
        assert!(problem["detail"].as_str().unwrap().starts_with("10001 documents"), "{problem}");
    }
}

#[test]
fn returns_one_result_per_ndjson_line_in_order() {
    let server = Server::start();
    let lines = "{\"id\": 1, \"title\": \"apple\"}\n\nnot json\r\n{\"id\": 2, \"title\": \"pear\"}\n{\"title\": \"no id\"}\n\
                 [1]\n{\"id\": 3, \"title\": \"x\", \"year\": {}}\n{\"id\": 4, \"title\": \"\\ud800\"}\n{\"id\": 5, \"title\": \"plum\"}";
    let expected = [
        (json!(1), json!("created"), Value::Null),
        (json!(3), json!("error"), json!("json")),
        (json!(4), json!("created"), Value::Null),
        (json!(5), json!("error"), json!("id-missing")),
        (json!(6), json!("error"), json!("json-structure")),
        (json!(7), json!("error"), json!("field-value")),
        (json!(8), json!("error"), json!("json")),
        (json!(9), json!("created"), Value::Null),
    ];
    let outcomes = |results: &[Value]| -> Vec<(Value, Value, Value)> {
        results.iter().map(|r| (r["line"].clone(), r["status"].clone(), r["error"]["code"].clone())).collect()
    };
    let response = server.send("POST", PATH, &[NDJSON, STREAMED], lines.as_bytes());
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(outcomes(&response.lines()), expected);
    server.post("/collections/kb/delete", &json!({"filter": "*"})).ok(200);
    let response = server.send("POST", PATH, &[NDJSON], lines.as_bytes()).ok(200);
    assert_eq!(outcomes(response["results"].as_array().unwrap()), expected);
    assert_eq!((&response["created"], &response["errors"]), (&json!(3), &json!(5)));
    let empty = server.send("POST", PATH, &[NDJSON], b"\n\n").ok(200);
    assert_eq!(empty, json!({"results": [], "created": 0, "updated": 0, "unchanged": 0, "errors": 0}));
    server
        .send("POST", "/collections/nowhere/documents", &[NDJSON, STREAMED], b"{}")
        .problem(404, "collection-not-found");
}

#[test]
fn streams_results_while_the_body_is_being_sent() {
    let server = Server::start();
    let mut connection = server.connect();
    let head = "POST /collections/kb/documents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
                accept: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.write(head);
    let send = |connection: &mut crate::client::Connection, ids: std::ops::Range<u32>| {
        let lines: String = ids.map(|id| format!("{{\"id\": {id}, \"title\": \"apple\"}}\n")).collect();
        connection.write(format!("{:x}\r\n{lines}\r\n", lines.len()));
    };
    send(&mut connection, 0..500);
    // One batch is full: its results arrive although the request has not ended.
    let first = connection.read_until("\"line\":500,\"id\":\"499\"");
    assert!(first.contains("200 OK"), "{first}");
    assert_eq!(count(&server), 500);
    send(&mut connection, 500..510);
    connection.write("0\r\n\r\n");
    connection.read_until("\"line\":510,\"id\":\"509\"");
    assert_eq!(count(&server), 510);
}

#[test]
fn accepts_gzip_and_rejects_invalid_encodings() {
    let server = Server::start();
    let lines: String = (0..1200).map(|id| format!("{{\"id\": {id}, \"title\": \"apple\"}}\n")).collect();
    let response = server.send("POST", PATH, &[NDJSON, GZIP], &gzip(lines.as_bytes())).ok(200);
    assert_eq!(response["created"], 1200);
    let one = server.send("POST", PATH, &[JSON, GZIP], &gzip(b"{\"id\": \"z\"}"));
    assert!(one.status == 200 || one.status == 422, "{one:?}");
    server.send("POST", PATH, &[JSON, ("content-encoding", "br")], b"{}").problem(415, "content-encoding");
    server.send("POST", PATH, &[JSON, GZIP], b"{\"id\": 1}").problem(400, "body-gzip");
    let compressed = gzip(lines.as_bytes());
    server.send("POST", PATH, &[JSON, GZIP], &compressed[..compressed.len() / 2]).problem(400, "body-gzip");
}

#[test]
fn rejects_a_gzip_bomb() {
    let server = Server::start();
    let bomb = gzip(&vec![b' '; 65 << 20]);
    assert!(bomb.len() < 1 << 20);
    server.send("POST", PATH, &[NDJSON, GZIP], &bomb).problem(413, "body-size");
    server.send("POST", PATH, &[JSON, GZIP], &gzip(&vec![b' '; 3 << 20])).problem(413, "body-size");
    // If the response has already started, its last line reports the error.
    let mut lines = b"{\"id\": 1, \"title\": \"apple\"}\n".to_vec();
    lines.resize(65 << 20, b'\n');
    let response = server.send("POST", PATH, &[NDJSON, GZIP, STREAMED], &gzip(&lines));
    let results = response.lines();
    assert_eq!(
        (&results[0]["status"], &results[1]["error"]["code"]),
        (&json!("created"), &json!("body-size"))
    );
}

#[test]
fn rejects_a_body_that_is_too_large_before_it_is_sent() {
    let server = Server::start();
    for (content_type, length) in
        [("application/json", (2 << 20) + 1), ("application/x-ndjson", (64 << 20) + 1)]
    {
        let mut connection = server.connect();
        let head = String::from_utf8(request("POST", PATH, &[("content-type", content_type)], b"")).unwrap();
        connection.write(head.replace("content-length: 0", &format!("content-length: {length}")));
        Response::parse(&connection.read_to_end()).unwrap().problem(413, "body-size");
    }
}

#[test]
fn survives_clients_that_disconnect() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.write(
        "POST /collections/kb/documents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         accept: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n{\"id\": 1, \"title\": \"apple\"}\n",
    );
    drop(connection);
    server.post(PATH, &json!({"id": "after", "title": "pear"})).ok(200);
    server.get("/search?q=pear").ok(200);
}
