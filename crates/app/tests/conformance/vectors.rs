//! Validation before writing: no store may contain a vector that corrupts its index.

use serde_json::{Value, json};

use crate::test_store::{DOCS, Response, TestStore, document, flat, path};

/// The little-endian bytes of a vector, as in requests.
pub(crate) fn blob(values: &[f32]) -> Value {
    use base64::Engine as _;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
}

pub(crate) async fn rejects_invalid_vectors_before_writing_anything(store: &TestStore) {
    store.create(json!([{"name": "year", "kind": "numeric"}, flat(4, "cosine")])).await;
    let valid: Vec<_> =
        (1..9).map(|number| json!({"id": number.to_string(), "place": [number, 1, 0, 0]})).collect();
    store.load(&valid).await;
    let before = store.ids(json!({"vector": [1, 1, 0, 0], "k": 99})).await;
    let invalid = [
        (blob(&[1.0, f32::NAN, 0.0, 0.0]), "vector-value"),
        (blob(&[f32::INFINITY, 0.0, 0.0, 0.0]), "vector-value"),
        (blob(&[0.0, 0.0, 0.0, f32::NEG_INFINITY]), "vector-value"),
        (json!([0, 0, 0, 0]), "vector-value"),
        (blob(&[-0.0, 0.0, -0.0, 0.0]), "vector-value"),
        (json!([1e30, 1e30, 1e30, 1e30]), "vector-value"),
        (json!([1e300, 0, 0, 0]), "vector-value"),
        (json!([1, 2, 3]), "vector-dimensions"),
        (json!([1, 2, 3, 4, 5]), "vector-dimensions"),
        (json!([1, 2, 3, 4, 1, 2, 3, 4]), "vector-dimensions"),
        (json!({"base64": ""}), "vector-dimensions"),
        (json!({"base64": "AAAAAAAAAAAAAAAAAAAA"}), "vector-dimensions"),
        (json!({"base64": "AAAAAAAAAAA="}), "vector-dimensions"),
        (json!({"base64": "AAAA"}), "vector-dimensions"),
        (json!({"base64": "***"}), "field-value"),
        (json!("no vector"), "vector-dimensions"),
        (json!(7), "field-kind"),
        (json!(["a"]), "field-kind"),
    ];
    for (vector, code) in &invalid {
        let assert_rejected = |response: Response| {
            let problem = response.expect_error(422, code);
            assert_eq!(problem["at"], "place", "{problem}");
        };
        assert_rejected(store.put(&document("new"), &json!({"year": 1, "place": vector})).await);
        assert_rejected(store.put(&document("1"), &json!({"year": 1, "place": vector})).await);
        assert_rejected(store.patch(&document("1"), &json!({"year": 1, "place": vector})).await);
        let batch = json!([{"id": "new", "place": vector}, {"id": "8", "place": [8, 1, 0, 0]}]);
        let response = store.post(&path(DOCS, "documents"), &batch).await.expect(200);
        assert_eq!(response["results"][0]["error"]["code"], *code, "{response}");
        assert_eq!(response["results"][1]["status"], "unchanged", "{response}");
    }
    assert_eq!(store.count("*").await, 8, "nothing was written");
    assert_eq!(store.count("@year:[1 1]").await, 0, "no field was written");
    assert_eq!(store.ids(json!({"vector": [1, 1, 0, 0], "k": 99})).await, before, "the index is unchanged");
}

pub(crate) async fn accepts_extreme_valid_vectors(store: &TestStore) {
    store.create(json!([flat(4, "cosine")])).await;
    let smallest = f32::from_bits(1);
    for (number, values) in [
        [-0.0, 1.0, 0.0, 0.0],
        [1e-20, 1e-20, 0.0, 0.0],
        [smallest, 1.0, -1.0, 0.0],
        [1e18, 0.0, 0.0, -1e18],
        [f32::MIN_POSITIVE, 1.0, 0.0, 1.0],
    ]
    .into_iter()
    .enumerate()
    {
        let id = number.to_string();
        store.put(&document(&id), &json!({"place": blob(&values)})).await.expect(201);
        let read = store.get(&format!("{}?vectors=true", document(&id))).await.expect(200);
        assert_eq!(read["fields"]["place"], blob(&values), "stored byte for byte");
        let hits = store.search(json!({"vector": blob(&values), "k": 9})).await;
        let own = hits.iter().find(|hit| hit.id == id).unwrap_or_else(|| panic!("{values:?} is not found"));
        assert!(own.distance.abs() < 1e-4, "{values:?}: {own:?}");
        assert_eq!(hits.len(), number + 1);
        assert!(hits.is_sorted_by(|one, next| one.distance <= next.distance), "{hits:?}");
    }
}

pub(crate) async fn rejects_invalid_numbers_and_tags(store: &TestStore) {
    store
        .create(json!([
            {"name": "year", "kind": "numeric"},
            {"name": "tags", "kind": "tag"},
            flat(2, "l2"),
        ]))
        .await;
    for (field, value, code) in [
        ("year", json!("soon"), "field-value"),
        ("year", json!(""), "field-value"),
        ("year", json!("nan"), "field-value"),
        ("year", json!("inf"), "field-value"),
        ("year", json!("0x10"), "field-value"),
        ("year", json!("12 "), "field-value"),
        ("year", json!([1, 2]), "field-kind"),
        ("tags", json!(["a,b"]), "tag"),
        ("tags", json!([""]), "tag"),
        ("tags", json!([" "]), "tag"),
        ("tags", json!("x".repeat(5000)), "field-value"),
        ("tags", json!([1]), "field-kind"),
        ("tags", json!(true), "field-value"),
    ] {
        let problem = store.put(&document("1"), &json!({(field): value})).await.expect_error(422, code);
        assert_eq!(problem["at"], field, "{problem}");
    }
    assert_eq!(store.count("*").await, 0);
    for number in ["7", "-7.5", "1e3", "9007199254740993", "0.1"] {
        store.put(&document("1"), &json!({"year": number})).await;
        let exact = format!("@year:[{number} {number}]");
        assert_eq!(store.count(&exact).await, 1, "{exact}");
    }
}
