//! Nearest neighbours, compared with an exact search in double precision.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    random::Random,
    test_store::{DOCS, Hit, TestStore, collection, flat, hits, path},
};

const SEED: u64 = 0x6b6e_6e00;
const METRICS: [&str; 3] = ["cosine", "ip", "l2"];

/// Maximum difference between two scores of the same pair.
const TOLERANCE: f64 = 1e-4;

/// The distance as Redis defines it.
fn distance(metric: &str, one: &[f32], other: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    match metric {
        "cosine" => 1.0 - dot(one, other) / (dot(one, one) * dot(other, other)).sqrt(),
        "ip" => 1.0 - dot(one, other),
        "l2" => one.iter().zip(other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum(),
        other => panic!("no metric {other}"),
    }
}

fn score(metric: &str, distance: f64) -> f64 {
    if metric == "l2" { 1.0 / (1.0 + distance) } else { 1.0 - distance }
}

/// Number and distance of every vector, nearest first.
fn ranked(metric: &str, vectors: &[Vec<f32>], query: &[f32]) -> Vec<(usize, f64)> {
    let mut ranked: Vec<(usize, f64)> = vectors
        .iter()
        .enumerate()
        .map(|(number, vector)| (number, distance(metric, vector, query)))
        .collect();
    ranked.sort_by(|one, other| one.1.total_cmp(&other.1));
    ranked
}

async fn load(store: &TestStore, vectors: &[Vec<f32>]) {
    let documents: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(number, vector)| json!({"id": number.to_string(), "place": vector, "rank": number}))
        .collect();
    store.load(&documents).await;
}

fn assert_hits(metric: &str, hits: &[Hit], expected: &[(usize, f64)]) {
    let ids: Vec<String> = hits.iter().map(|hit| hit.id.clone()).collect();
    let expected_ids: Vec<String> = expected.iter().map(|(number, _)| number.to_string()).collect();
    assert_eq!(ids, expected_ids, "{metric}");
    for (hit, (number, distance)) in hits.iter().zip(expected) {
        assert!((hit.distance - distance).abs() < TOLERANCE, "{metric} {number}: {hit:?}, not {distance}");
        assert!((hit.score - score(metric, *distance)).abs() < TOLERANCE, "{metric} {number}: {hit:?}");
    }
}

pub(crate) async fn flat_search_is_exact(store: &TestStore) {
    for metric in METRICS {
        let mut random = Random::new(SEED);
        store.create(json!([flat(24, metric)])).await;
        let vectors: Vec<Vec<f32>> = (0..400).map(|_| random.vector(24)).collect();
        load(store, &vectors).await;
        for k in [1, 10, 400, 1000] {
            let query = random.vector(24);
            let hits = store.search(json!({"vector": query, "k": k, "fields": []})).await;
            let mut expected = ranked(metric, &vectors, &query);
            expected.truncate(k);
            assert_hits(metric, &hits, &expected);
        }
        store.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    }
}

pub(crate) async fn hnsw_search_has_high_recall_and_is_exact_on_request(store: &TestStore) {
    for metric in METRICS {
        let mut random = Random::new(SEED);
        let hnsw = json!({"name": "place", "kind": "vector", "dim": 16, "metric": metric, "m": 16,
                          "ef_construction": 200, "ef_search": 80});
        store.create(json!([hnsw])).await;
        let vectors: Vec<Vec<f32>> = (0..1500).map(|_| random.vector(16)).collect();
        load(store, &vectors).await;
        let mut hits = 0;
        for _ in 0..20 {
            let query = random.vector(16);
            let expected = &ranked(metric, &vectors, &query)[..10];
            let nearest: BTreeSet<String> = expected.iter().map(|(number, _)| number.to_string()).collect();
            let search = json!({"vector": query, "k": 10, "ef_search": 300, "fields": []});
            hits += store.ids(search).await.iter().filter(|id| nearest.contains(*id)).count();
            let exact = store.search(json!({"vector": query, "k": 10, "exact": true, "fields": []})).await;
            assert_hits(metric, &exact, expected);
        }
        assert!(hits >= 195, "{metric}: {hits} of the 200 nearest found");
        store.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    }
}

pub(crate) async fn hnsw_search_of_many_documents_agrees_with_exact_search(store: &TestStore) {
    let hnsw = json!({"name": "place", "kind": "vector", "dim": 16, "metric": "cosine"});
    store.create(json!([{"name": "rank", "kind": "numeric"}, hnsw])).await;
    let mut random = Random::new(SEED);
    let vectors: Vec<Vec<f32>> = (0..10_000).map(|_| random.vector(16)).collect();
    load(store, &vectors).await;
    let (mut hits, mut filtered_hits) = (0, 0);
    for _ in 0..100 {
        let query = random.vector(16);
        let nearest = |vectors: &[Vec<f32>]| -> BTreeSet<String> {
            let ranked = ranked("cosine", vectors, &query);
            ranked[..10].iter().map(|(number, _)| number.to_string()).collect()
        };
        let found = store.ids(json!({"vector": query, "k": 10, "fields": []})).await;
        assert_eq!(found.len(), 10);
        let expected = nearest(&vectors);
        hits += found.iter().filter(|id| expected.contains(*id)).count();
        let filter = "@rank:[-inf (3000]";
        let found = store.ids(json!({"vector": query, "k": 10, "filter": filter, "fields": []})).await;
        assert_eq!(found.len(), 10);
        let expected = nearest(&vectors[..3000]);
        filtered_hits += found.iter().filter(|id| expected.contains(*id)).count();
    }
    eprintln!(
        "recall_at_10 of 100 queries each: {} without, {} with a filter",
        hits as f64 / 1e3,
        filtered_hits as f64 / 1e3
    );
    assert!(hits >= 950 && filtered_hits >= 950, "{hits} and {filtered_hits} of 1000");
}

pub(crate) async fn returns_vectors_of_every_element_type_unchanged(store: &TestStore) {
    for vector_type in ["FLOAT16", "BFLOAT16"] {
        store
            .create(json!([{"name": "place", "kind": "vector", "algorithm": "flat", "type": vector_type, "dim": 3, "metric": "l2"}]))
            .await;
        // Integers that every type represents exactly.
        let vectors: Vec<Vec<f32>> = (0..50).map(|number| vec![number as f32, 1.0, -2.0]).collect();
        load(store, &vectors).await;
        let hits = store.search(json!({"vector": [7, 1, -2], "k": 3, "fields": ["place"]})).await;
        assert_eq!(hits[0].id, "7", "{vector_type}");
        assert_eq!(hits.iter().map(|hit| hit.distance).collect::<Vec<_>>(), [0.0, 1.0, 1.0], "{vector_type}");
        let bytes = hits[0].fields["place"]["base64"].as_str().unwrap();
        assert_eq!(bytes.len(), 8, "6 bytes of {vector_type}");
        let blob = json!({"vector": {"base64": bytes}, "k": 1});
        assert_eq!(store.ids(blob).await, ["7"], "{vector_type}");
        store.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    }
}

pub(crate) async fn finds_all_ties_and_repeats_none_on_the_next_page(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    // Ten points with ten documents each.
    let vectors: Vec<Vec<f32>> = (0..100).map(|number| vec![(number % 10) as f32, 0.0]).collect();
    load(store, &vectors).await;
    let hits = store.search(json!({"vector": [0, 0], "k": 40})).await;
    let mut by_distance: BTreeMap<i64, BTreeSet<usize>> = BTreeMap::new();
    for hit in &hits {
        by_distance.entry(hit.distance.round() as i64).or_default().insert(hit.id.parse().unwrap());
    }
    let at_point = |x: usize| (0..10).map(|row| row * 10 + x).collect::<BTreeSet<_>>();
    let expected = BTreeMap::from([(0, at_point(0)), (1, at_point(1)), (4, at_point(2)), (9, at_point(3))]);
    assert_eq!(by_distance, expected);
    let again = store.ids(json!({"vector": [0, 0], "k": 40})).await;
    assert_eq!(again, hits.iter().map(|hit| hit.id.clone()).collect::<Vec<_>>(), "the order is stable");
    let mut seen = BTreeSet::new();
    for offset in (0..100).step_by(7) {
        for id in store.ids(json!({"vector": [0, 0], "k": 7, "offset": offset})).await {
            assert!(seen.insert(id.clone()), "{id} is on two pages");
        }
    }
    assert_eq!(seen.len(), 100);
}

pub(crate) async fn pages_together_contain_all_results(store: &TestStore) {
    let mut random = Random::new(SEED);
    store.create(json!([flat(8, "cosine")])).await;
    let vectors: Vec<Vec<f32>> = (0..230).map(|_| random.vector(8)).collect();
    load(store, &vectors).await;
    let query = random.vector(8);
    let all = store.ids(json!({"vector": query, "k": 1000})).await;
    assert_eq!(all.len(), 230);
    let mut pages = Vec::new();
    for offset in (0..300).step_by(50) {
        pages.extend(store.ids(json!({"vector": query, "k": 50, "offset": offset})).await);
    }
    assert_eq!(pages, all);
}

pub(crate) async fn applies_the_minimum_score(store: &TestStore) {
    for (metric, min_score, expected) in [("l2", 0.19, 3), ("l2", 0.51, 1), ("cosine", 0.999, 1)] {
        store.create(json!([flat(2, metric)])).await;
        let vectors: Vec<Vec<f32>> = (0..20).map(|number| vec![1.0, number as f32]).collect();
        load(store, &vectors).await;
        let hits = store.search(json!({"vector": [1, 0], "min_score": min_score, "k": 20})).await;
        assert_eq!(hits.len(), expected, "{metric} {min_score}: {hits:?}");
        assert!(hits.iter().all(|hit| hit.score >= min_score));
        store.delete(&format!("{}?documents=delete", collection(DOCS))).await.expect(204);
    }
}

pub(crate) async fn returns_only_the_requested_fields(store: &TestStore) {
    store
        .create(json!([
            {"name": "title", "kind": "text"},
            {"name": "tags", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
    store.load(&[json!({"id": "1", "title": "one", "tags": ["a", "b"], "year": 7, "place": [1, 2]})]).await;
    let fields = async |search: Value| store.search(search).await.remove(0).fields;
    let all = json!({"title": "one", "tags": ["a", "b"], "year": 7});
    assert_eq!(fields(json!({"vector": [1, 2]})).await, all);
    assert_eq!(fields(json!({"vector": [1, 2], "fields": []})).await, json!({}));
    assert_eq!(fields(json!({"vector": [1, 2], "fields": ["year"]})).await, json!({"year": 7}));
    let vector = json!({"place": {"base64": "AACAPwAAAEA="}});
    assert_eq!(fields(json!({"vector": [1, 2], "fields": ["place"]})).await, vector);
}

pub(crate) async fn returns_the_results_of_several_searches_in_order(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    let vectors: Vec<Vec<f32>> = (0..50).map(|number| vec![number as f32, 0.0]).collect();
    load(store, &vectors).await;
    let mut searches: Vec<Value> = (0..50).map(|number| json!({"vector": [number, 0], "k": 1})).collect();
    searches[20] = json!({"vector": [1, 2, 3]});
    searches[30] = json!({"vector": [1, 2], "filter": "@nowhere:{x}"});
    let response = store.post(&path(DOCS, "search"), &json!({"searches": searches})).await.expect(200);
    for (number, response) in response["answers"].as_array().unwrap().iter().enumerate() {
        match number {
            20 => assert_eq!(response["error"]["code"], "vector-dimensions"),
            30 => assert_eq!(response["error"]["code"], "filter"),
            number => assert_eq!(hits(response)[0].id, number.to_string()),
        }
    }
}

pub(crate) async fn rejects_invalid_searches(store: &TestStore) {
    store.create(json!([{"name": "title", "kind": "text"}, flat(2, "cosine")])).await;
    for (search, code) in [
        (json!({"vector": [1, 2], "k": 0}), "k"),
        (json!({"vector": [1, 2], "k": 1001}), "k"),
        (json!({"vector": [1, 2], "offset": 9999}), "offset"),
        (json!({"vector": [1, 2], "ef_search": 0}), "ef-search"),
        (json!({"vector": [1, 2], "ef_search": 4097}), "ef-search"),
        (json!({"vector": [1]}), "vector-dimensions"),
        (json!({"vector": []}), "vector-dimensions"),
        (json!({"vector": [0, 0]}), "vector-value"),
        (json!({"vector": [1e300, 0]}), "vector-value"),
        (json!({"vector": {"base64": "AAAA"}}), "vector-dimensions"),
        (json!({"vector": [1, 2], "field": "title"}), "field-not-found"),
        (json!({"vector": [1, 2], "field": "nowhere"}), "field-not-found"),
        (json!({"vector": [1, 2], "fields": ["nowhere"]}), "field-not-found"),
        (json!({"text": "apple"}), "field-not-embedded"),
        (json!({}), "search"),
    ] {
        store.post(&path(DOCS, "search"), &search).await.expect_error(422, code);
    }
}
