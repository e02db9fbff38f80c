//! `/search`, `/kb/search` and `/collections/{c}/search`.

use serde_json::{Value, json};
use testing::tiny_model;

use crate::server::{ARTICLES, JSON, Server};

fn ids(response: &Value) -> Vec<&str> {
    response["results"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

/// The response without everything that depends on the clock or on rounding.
fn without_variable_parts(mut response: Value) -> Value {
    assert!(response["took_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{response}");
    response["took_ms"] = json!("TIME");
    for stage in ["queue_us", "embed_us", "filter_us", "search_us", "fetch_us", "total_us"] {
        assert!(response["timing"][stage].is_u64(), "{response}");
        response["timing"][stage] = json!("TIME");
    }
    for hit in response["results"].as_array_mut().unwrap() {
        let (score, distance) = (hit["score"].as_f64().unwrap(), hit["distance"].as_f64().unwrap());
        assert!((score + distance - 1.0).abs() < 1e-6, "{hit}");
        // Adding zero makes a negative zero positive.
        let rounded = |value: f64| json!((value * 100.0).round() / 100.0 + 0.0);
        hit["score"] = rounded(score);
        hit["distance"] = rounded(distance);
    }
    response
}

#[test]
fn returns_the_documented_search_response() {
    let server = Server::with_articles();
    let response = server.get("/search?q=reset+my+login%20password&k=1");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let timing = response.header("server-timing").unwrap();
    for stage in ["queue;dur=", "embed;dur=", "search;dur=", "fetch;dur="] {
        assert!(timing.contains(stage), "{timing}");
    }
    let response = response.ok(200);
    assert_eq!(response["query"], "reset my login password");
    assert_eq!(ids(&response), ["kb-2"]);
    let exact = server.get("/search?q=refund+payment+card+invoice+refund+price&k=1").ok(200);
    insta::assert_json_snapshot!("search", without_variable_parts(exact));
}

#[test]
fn kb_search_returns_snippets() {
    let server = Server::with_articles();
    let long = "apple ".repeat(60);
    server.put("/collections/kb/documents/long", &json!({"title": "apple", "content": long})).ok(201);
    let response = server.get("/kb/search?q=apple&k=9").ok(200);
    for hit in response["results"].as_array().unwrap() {
        let content =
            ARTICLES.iter().find(|article| article.0 == hit["id"]).map(|article| article.2.to_owned());
        assert_eq!(hit["snippet"], content.unwrap_or_else(|| format!("{}...", &long[..200])));
        assert_eq!(hit["content"], Value::Null);
    }
    let response = server.get("/kb/search?q=fruit+apple+pear+plum+cherry&k=1").ok(200);
    insta::assert_json_snapshot!("kb_search", without_variable_parts(response));
}

#[test]
fn parameters_change_the_response() {
    let server = Server::with_articles();
    let search = |query: &str| server.get(&format!("/search?q=apple{query}")).ok(200);
    assert_eq!(ids(&search("")).len(), 4, "k is 5 if not given");
    assert_eq!(ids(&search("&k=2")).len(), 2);
    assert_eq!(ids(&search("&k=2&offset=3")).len(), 1);
    assert_eq!(ids(&search("&filter=%40category%3A%7Bbilling%7D")), ["kb-1"]);
    assert_eq!(ids(&search("&filter=%40year%3A%5B2023+%2Binf%5D")).len(), 2);
    assert_eq!(ids(&search("&exact=true&ef_search=10&timing=true&k=1")), ["kb-4"]);
    assert_eq!(ids(&search("&min_score=0.999")).len(), 0);
    assert_eq!(ids(&search("&collection=kb&k=1")), ["kb-4"]);
}

#[test]
fn rejects_invalid_searches_with_a_code() {
    let server = Server::with_articles();
    for (query, status, code, at) in [
        ("", 400, "parameter", "q"),
        ("?q=", 400, "parameter", "q"),
        ("?q=%20", 400, "parameter", "q"),
        ("?q=a&k=x", 400, "parameter", "k"),
        ("?q=a&k=-1", 400, "parameter", "k"),
        ("?q=a&limit=1", 400, "parameter-unknown", "limit"),
        ("?q=a&q=b", 400, "parameter-repeated", "q"),
        ("?q=%ff", 400, "query-string", "query"),
        ("?q=100%", 400, "query-string", "query"),
        ("?q=a&exact=maybe", 400, "parameter", "exact"),
        ("?q=a&min_score=NaN", 400, "parameter", "min_score"),
        ("?q=a&filter=", 400, "parameter", "filter"),
        ("?q=a&k=1001", 422, "k", "k"),
        ("?q=a&k=0", 422, "k", "k"),
        ("?q=a&ef_search=4097", 422, "ef-search", "ef_search"),
    ] {
        for path in ["/search", "/kb/search"] {
            let problem = server.get(&format!("{path}{query}")).problem(status, code);
            assert_eq!(problem["at"], at, "{query}: {problem}");
        }
    }
    let problem = server.get("/search?q=a&k=10&offset=9999").ok(422);
    assert!(problem["detail"].as_str().unwrap().contains("10000"), "{problem}");
    let problem = server.get("/search?q=a&filter=%40category%3A%7B").ok(422);
    assert!(problem["at"].is_string(), "{problem}");
    let problem = server.get("/search?q=a&filter=%40colour%3A%7Bred%7D").ok(422);
    assert!(problem["detail"].as_str().unwrap().contains("colour"), "{problem}");
    server.get("/search?q=a&collection=nowhere").problem(404, "collection-not-found");
}

#[test]
fn requires_a_collection_name_if_there_are_several() {
    let server = Server::with_articles();
    server.put("/collections/other", &crate::server::schema()).ok(201);
    let problem = server.get("/search?q=apple").problem(400, "collection-ambiguous");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("kb") && detail.contains("other"), "{detail}");
    assert_eq!(ids(&server.get("/search?q=apple&k=1&collection=kb").ok(200)), ["kb-4"]);
}

#[test]
fn reports_that_a_long_query_was_truncated() {
    let server = Server::with_articles();
    let words = vec!["apple"; tiny_model::TOKENS_MAX * 2].join("+");
    assert_eq!(server.get(&format!("/search?q={words}")).ok(200)["truncated"], true);
    assert_eq!(server.get("/search?q=apple").ok(200)["truncated"], Value::Null);
}

#[test]
fn searches_a_collection_by_text_and_by_vector() {
    let server = Server::with_articles();
    let search = |body: Value| server.post("/collections/kb/search", &body);
    let response = search(json!({"text": "network cable", "k": 1})).ok(200);
    assert_eq!(response["collection"], "kb");
    assert_eq!(
        response["results"][0]["fields"],
        json!({"title": "router signal", "content": "network cable port server", "category": ["network"], "year": 2023})
    );
    assert_eq!(ids(&search(json!({"text": "apple"})).ok(200)).len(), 4, "k is 10 if not given");
    let response = search(json!({"text": "apple", "k": 1, "fields": ["year"]})).ok(200);
    assert_eq!(response["results"][0]["fields"], json!({"year": 2024}));

    let mut vector = vec![0.0; tiny_model::DIM];
    vector[3] = 1.0;
    let blob: Vec<u8> = vector.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
    use base64::Engine;
    let blob = base64::prelude::BASE64_STANDARD.encode(blob);
    let by_array = search(json!({"vector": vector, "k": 4, "exact": true})).ok(200);
    let by_blob =
        search(json!({"vector": {"base64": blob}, "k": 4, "exact": true, "field": "embedding"})).ok(200);
    assert_eq!(by_array["results"], by_blob["results"]);
    assert_eq!(ids(&by_array).len(), 4);

    let problem = search(json!({"vector": [1, 2, 3]})).problem(422, "vector-dimensions");
    assert!(problem["detail"].as_str().unwrap().contains("vector dimensions do not match"), "{problem}");
    search(json!({"vector": [[1], [2]]})).problem(422, "search");
    search(json!({})).problem(422, "search");
    search(json!({"text": "a", "limit": 3})).problem(422, "json-structure");
    search(json!({"text": "a", "fields": ["colour"]})).ok(422);
    search(json!([])).problem(422, "json-structure");
    server.send("POST", "/collections/kb/search", &[JSON], b"{\"text\": \"\\ud800\"}").problem(400, "json");
    server.send("POST", "/collections/kb/search", &[JSON], b"{\"vector\": [1e999]}").problem(400, "json");
    server.post("/collections/nowhere/search", &json!({"text": "a"})).problem(404, "collection-not-found");
}

#[test]
fn returns_independent_results_of_several_searches_in_order() {
    let server = Server::with_articles();
    let queries: Vec<Value> = ARTICLES
        .iter()
        .map(|(_, title, content, _, _)| json!({"text": format!("{title} {content}"), "k": 1}))
        .collect();
    let mut searches = queries.clone();
    searches.insert(1, json!({"text": "a", "vector": [1]}));
    searches.insert(3, json!({"text": "a", "k": 5000}));
    let response = server.post("/collections/kb/search", &json!({"searches": searches})).ok(200);
    let answers = response["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 6);
    assert_eq!(answers[1]["error"]["code"], "search");
    assert_eq!(answers[3]["error"]["status"], 422);
    for (at, article) in [0, 2, 4, 5].into_iter().zip(ARTICLES) {
        assert_eq!(ids(&answers[at]), [article.0]);
    }
    server.post("/collections/kb/search", &json!({"searches": [], "k": 3})).problem(422, "search");
    let nested = json!({"searches": [{"searches": []}]});
    let response = server.post("/collections/kb/search", &nested).ok(200);
    assert_eq!(response["answers"][0]["error"]["code"], "search");
    let many: Vec<Value> = (0..101).map(|_| json!({"text": "a"})).collect();
    server.post("/collections/kb/search", &json!({"searches": many})).problem(422, "too-many-searches");
    // Also if all of them are invalid: their errors would be many times larger than the body.
    let body = format!("{{\"searches\":[{}{{}}]}}", "{},".repeat(500_000));
    let response = server.send("POST", "/collections/kb/search", &[JSON], body.as_bytes());
    let problem = response.problem(422, "too-many-searches");
    assert!(problem["detail"].as_str().unwrap().starts_with("500001 searches"), "{problem}");
}

#[test]
fn limits_the_number_of_requested_fields() {
    let server = Server::with_articles();
    let search = |fields: usize| {
        let search = json!({"text": "apple", "fields": vec!["title"; fields]});
        server.post("/collections/kb/search", &search)
    };
    let response = search(1024).ok(200);
    assert_eq!(response["results"][0]["fields"].as_object().unwrap().len(), 1, "{response}");
    for fields in [1025, 100_000] {
        let problem = search(fields).problem(422, "too-many-fields");
        assert_eq!(problem["at"], "fields");
        assert!(problem["detail"].as_str().unwrap().starts_with(&format!("{fields} fields")), "{problem}");
    }
}

#[test]
fn rejects_a_response_that_is_too_large_with_advice() {
    let server = Server::start();
    let large = "x".repeat(1_900_000);
    for id in 0..20 {
        let path = format!("/collections/kb/documents/{id}");
        server.put(&path, &json!({"title": "apple", "note": large})).ok(201);
    }
    let search = |search: Value| server.post("/collections/kb/search", &search);
    let problem = search(json!({"text": "apple", "k": 20})).problem(422, "response-size");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("33554432 bytes") && detail.contains("(fields)"), "{detail}");
    server.get("/search?q=apple&k=20").problem(422, "response-size");
    assert_eq!(ids(&search(json!({"text": "apple", "k": 20, "fields": ["title"]})).ok(200)).len(), 20);
    assert_eq!(ids(&search(json!({"text": "apple", "k": 15})).ok(200)).len(), 15);
    // The limit applies to all searches of a request together.
    let both = search(json!({"searches": vec![json!({"text": "apple", "k": 15}); 2]})).ok(200);
    let codes: Vec<&Value> =
        both["answers"].as_array().unwrap().iter().map(|a| &a["error"]["code"]).collect();
    assert_eq!(codes.iter().filter(|code| **code == "response-size").count(), 1, "{codes:?}");
    let page = server.get("/collections/kb/documents?limit=1000").ok(200);
    assert_eq!(page["documents"].as_array().unwrap().len(), 9);
    let rest = format!("/collections/kb/documents?limit=1000&after={}", page["next"].as_str().unwrap());
    assert_eq!(server.get(&rest).ok(200)["documents"].as_array().unwrap().len(), 9);
}

#[test]
fn enforces_and_validates_the_deadline() {
    let server = Server::with_articles();
    let search = |ms: &str| server.send("GET", "/search?q=apple", &[("x-timeout-ms", ms)], b"");
    search("60000").ok(200);
    for bad in ["0", "60001", "soon", "-1", "1.5"] {
        assert_eq!(search(bad).problem(400, "header")["at"], "X-Timeout-Ms");
    }
}
