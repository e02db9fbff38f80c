//! Lines in = results out, for arbitrary bytes: every line that is not blank has one result with its number.

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngSeed},
};
use serde_json::{Value, json};

use crate::server::{JSON, NDJSON, Server};

const PATH: &str = "/collections/kb/documents";
/// Seed of all random choices.
const SEED: u64 = 13_001;

fn lines() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 21] = [
        b"{\"id\":\"a\",\"title\":\"apple\"}",
        b"{\"id\":7,\"year\":2020}\r",
        b"  {\"id\":\"a\",\"category\":[\"x\",\"y\"]}  ",
        b"",
        b" \t\r",
        b"{",
        b"[]",
        b"null",
        b"{\"title\":\"no id\"}",
        b"{\"id\":1,\"id\":2}",
        b"{\"id\":1,\"title\":\"a\",\"title\":\"b\"}",
        b"{\"id\":1,\"year\":1e999}",
        b"{\"id\":1,\"year\":1e308}",
        b"{\"id\":1,\"title\":\"\\ud800\"}",
        b"{\"id\":1,\"title\":\"\\u0000\"}",
        b"{\"id\":1,\"title\":\"caf\xe9\"}",
        b"\xef\xbb\xbf{\"id\":1}",
        b"\0\0",
        b"{\"id\":1,\"embedding\":[1e39]}",
        b"{\"id\":1,\"ttl_s\":-1}",
        b"{\"id\":1}{\"id\":2}",
    ];
    let deep = |depth: usize| format!("{{\"id\":1,\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    texts.iter().map(|text| text.to_vec()).chain([deep(100), deep(10_000)].map(String::into_bytes)).collect()
}

/// Bodies composed of known lines and random bytes.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let any = prop::collection::vec(any::<u8>(), 0..60);
    prop::collection::vec(prop_oneof![4 => select(lines()), 1 => any], 0..40)
        .prop_map(|lines| lines.join(&b'\n'))
}

/// Numbers of the lines that are not blank.
fn numbers(body: &[u8]) -> Vec<Value> {
    let lines = (1..).zip(body.split(|byte| *byte == b'\n'));
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(number, _): (u64, _)| json!(number))
        .collect()
}

#[test]
fn every_line_has_one_result_with_its_number() {
    let server = Server::start();
    proptest!(Config { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(SEED), ..Config::default() }, |(body in body())| {
        let line_numbers = |results: &[Value]| -> Vec<Value> {
            for result in results {
                let is_error = result["status"] == "error";
                assert_eq!(is_error, result["error"].is_object(), "{result}");
                let status = result["error"]["status"].as_u64().unwrap_or(200);
                assert!(status < 500, "{result}");
            }
            results.iter().map(|result| result["line"].clone()).collect()
        };
        let response = server.send("POST", PATH, &[NDJSON], &body).ok(200);
        prop_assert_eq!(line_numbers(response["results"].as_array().unwrap()), numbers(&body));
        let counts = ["created", "updated", "unchanged", "errors"].map(|name| response[name].as_u64().unwrap());
        prop_assert_eq!(counts.iter().sum::<u64>(), numbers(&body).len() as u64);
        let streamed = server.send("POST", PATH, &[NDJSON, ("accept", "application/x-ndjson")], &body);
        prop_assert_eq!(streamed.status, 200);
        prop_assert_eq!(line_numbers(&streamed.lines()), numbers(&body));
    });
}

#[test]
fn every_json_body_is_accepted_or_rejected_with_a_detail() {
    let server = Server::start();
    proptest!(Config { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(SEED), ..Config::default() }, |(body in body())| {
        for (method, path) in [
            ("POST", PATH),
            ("PUT", "/collections/kb/documents/a"),
            ("PATCH", "/collections/kb/documents/a"),
            ("PUT", "/collections/kb"),
            ("POST", "/collections/kb/search"),
            ("POST", "/collections/kb/delete"),
            ("PUT", "/aliases/other"),
        ] {
            let response = server.send(method, path, &[JSON], &body);
            // An empty body requires a model that is not installed.
            let is_missing_model = response.status == 503 && response.json()["code"] == "model-missing";
            prop_assert!(response.status < 500 || is_missing_model, "{} {}: {:?}", method, path, response);
            if response.status >= 400 {
                prop_assert_eq!(response.header("content-type"), Some("application/problem+json"));
                prop_assert!(response.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
            }
        }
    });
}
