//! Request parameters at their minimum and maximum, beyond them, and of the wrong type.

use serde_json::{Value, json};

use crate::{client::Reply, server::Server};

/// A parameter's name in messages, its minimum, its maximum, and how messages state the range.
type Bounds = (&'static str, u64, u64, &'static str);

/// Checks the bounds of a parameter; `send` sends a request with the given value.
fn check((name, least, most, words): Bounds, send: impl Fn(&Value) -> Reply) {
    for good in [least, most] {
        let reply = send(&json!(good));
        assert!(reply.status < 300, "{name} = {good}: {reply:?}\n{}", reply.text());
    }
    let beyond = [json!(i128::from(least) - 1), json!(most + 1), json!(u64::MAX)];
    for bad in beyond {
        let detail = rejected(name, &bad, send(&bad));
        // For a negative number, the message states the type instead of the range.
        assert!(!bad.is_u64() || detail.contains(words), "{name} = {bad}: {words:?} is not in {detail:?}");
    }
    for bad in [json!("four"), json!(1.5), json!([1]), json!({})] {
        rejected(name, &bad, send(&bad));
    }
}

/// Asserts that the response is an error that names the parameter in its detail or in `at`; returns the detail.
fn rejected(name: &str, value: &Value, reply: Reply) -> String {
    assert!([400, 422].contains(&reply.status), "{name} = {value}: {reply:?}\n{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem = reply.json();
    let detail = problem["detail"].as_str().unwrap().to_owned();
    let names = detail.contains(name) || problem["at"].as_str().is_some_and(|at| at.contains(name));
    assert!(names, "{name} = {value}: not named in {problem}");
    detail
}

/// A value in a query string.
fn written(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let escape = |letter: char| match letter {
        '[' | ']' | '{' | '}' => format!("%{:02X}", letter as u32),
        letter => letter.to_string(),
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
            check(bounds, |value| server.get(&format!("{path}&{}={}", bounds.0, written(value))));
        }
        check(bounds, |value| {
            let mut search = json!({"text": "apple", "k": 5});
            search[bounds.0] = value.clone();
            server.post("/collections/kb/search", &search)
        });
    }
    check(("limit", 1, 1000, "1 to 1000"), |value| {
        server.get(&format!("/collections/kb/documents?limit={}", written(value)))
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
            Server::with(Default::default()).put("/collections/made", &json!({"fields": [vector]}))
        });
    }
}

#[test]
fn checks_the_bounds_of_times() {
    let server = Server::with_articles();
    let put =
        |ttl: &Value| server.put("/collections/kb/documents/a", &json!({"title": "apple", "ttl_s": ttl}));
    for good in [json!(0.001), json!(1), json!(1_000 * 366 * 24 * 3600u64)] {
        let reply = put(&good);
        assert!(reply.status < 300, "ttl_s = {good}: {}", reply.text());
    }
    for bad in [json!(0), json!(-1), json!(1e300), json!("1"), json!(true), json!([1]), json!({})] {
        rejected("ttl_s", &bad, put(&bad));
    }
    for (ms, status) in
        [("1", None), ("60000", Some(200)), ("0", Some(400)), ("60001", Some(400)), ("soon", Some(400))]
    {
        let reply = server.send("GET", "/search?q=apple", &[("x-timeout-ms", ms)], b"");
        match status {
            Some(status) => assert_eq!(reply.status, status, "{ms}: {}", reply.text()),
            // The deadline may pass before the response is ready.
            None => assert!([200, 504].contains(&reply.status), "{ms}: {}", reply.text()),
        }
        if reply.status == 400 {
            let detail = reply.problem(400, "header")["detail"].to_string();
            assert!(detail.contains("60000"), "{detail}");
        }
    }
}
