//! Request parameters at their minimum and maximum, beyond them, and of the wrong type.

use serde_json::{Value, json};

use crate::{client::Response, server::Server};

/// A parameter's name in messages, its minimum, its maximum, and how messages state the range.
type Bounds = (&'static str, u64, u64, &'static str);

/// Checks the bounds of a parameter; `send` sends a request with the given value.
fn check((name, min, max, range): Bounds, send: impl Fn(&Value) -> Response) {
    for valid in [min, max] {
        let response = send(&json!(valid));
        assert!(response.status < 300, "{name} = {valid}: {response:?}\n{}", response.text());
    }
    for invalid in [json!(i128::from(min) - 1), json!(max + 1), json!(u64::MAX)] {
        let detail = assert_rejected(name, &invalid, send(&invalid));
        // For a negative number, the message states the type instead of the range.
        assert!(
            !invalid.is_u64() || detail.contains(range),
            "{name} = {invalid}: {range:?} is not in {detail:?}"
        );
    }
    for invalid in [json!("four"), json!(1.5), json!([1]), json!({})] {
        assert_rejected(name, &invalid, send(&invalid));
    }
}

/// Asserts that the response is an error that names the parameter in its detail or in `at`; returns the detail.
fn assert_rejected(name: &str, value: &Value, response: Response) -> String {
    assert!([400, 422].contains(&response.status), "{name} = {value}: {response:?}\n{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    let detail = problem["detail"].as_str().unwrap().to_owned();
    let is_named = detail.contains(name) || problem["at"].as_str().is_some_and(|at| at.contains(name));
    assert!(is_named, "{name} = {value}: not named in {problem}");
    detail
}

/// A value as it is written in a query string.
fn query_value(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let escape = |c: char| match c {
        '[' | ']' | '{' | '}' => format!("%{:02X}", c as u32),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[test]
fn checks_the_bounds_of_search_parameters() {
    let server = Server::with_articles();
    for bounds in [
        ("k", 1, 1000, "1 to 1000"),
        ("ef_search", 1, 4096, "1 to 4096"),
        ("offset", 0, 9_995, "more than 10000"),
    ] {
        for path in ["/search?q=apple", "/kb/search?q=apple"] {
            check(bounds, |value| server.get(&format!("{path}&{}={}", bounds.0, query_value(value))));
        }
        check(bounds, |value| {
            let mut search = json!({"text": "apple", "k": 5});
            search[bounds.0] = value.clone();
            server.post("/collections/kb/search", &search)
        });
    }
    check(("limit", 1, 1000, "1 to 1000"), |value| {
        server.get(&format!("/collections/kb/documents?limit={}", query_value(value)))
    });
}

#[test]
fn checks_the_bounds_of_schema_options() {
    for bounds in [
        ("dim", 1, 4096, "1 to 4096"),
        ("m", 2, 128, "2 to 128"),
        ("ef_construction", 1, 4096, "1 to 4096"),
        ("ef_search", 1, 4096, "1 to 4096"),
    ] {
        check(bounds, |value| {
            let mut vector = json!({"name": "place", "kind": "vector", "dim": 4});
            vector[bounds.0] = value.clone();
            Server::with(Default::default()).put("/collections/new", &json!({"fields": [vector]}))
        });
    }
}

#[test]
fn checks_the_bounds_of_times() {
    let server = Server::with_articles();
    let put =
        |ttl: &Value| server.put("/collections/kb/documents/a", &json!({"title": "apple", "ttl_s": ttl}));
    for valid in [json!(0.001), json!(1), json!(1_000 * 366 * 24 * 3600u64)] {
        let response = put(&valid);
        assert!(response.status < 300, "ttl_s = {valid}: {}", response.text());
    }
    for invalid in [json!(0), json!(-1), json!(1e300), json!("1"), json!(true), json!([1]), json!({})] {
        assert_rejected("ttl_s", &invalid, put(&invalid));
    }
    for (ms, status) in
        [("1", None), ("60000", Some(200)), ("0", Some(400)), ("60001", Some(400)), ("soon", Some(400))]
    {
        let response = server.send("GET", "/search?q=apple", &[("x-timeout-ms", ms)], b"");
        match status {
            Some(status) => assert_eq!(response.status, status, "{ms}: {}", response.text()),
            // The deadline may pass before the response is ready.
            None => assert!([200, 504].contains(&response.status), "{ms}: {}", response.text()),
        }
        if response.status == 400 {
            let detail = response.problem(400, "header")["detail"].to_string();
            assert!(detail.contains("60000"), "{detail}");
        }
    }
}
