//! What is refused before anything is written: no store may hold a vector that spoils its index.

use serde_json::{Value, json};

use crate::house::{DOCS, House, Reply, document, flat, path};

/// A little-endian blob, as requests carry it.
pub(crate) fn blob(values: &[f32]) -> Value {
    use base64::Engine as _;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
}

pub(crate) async fn bad_vectors_are_refused_before_anything_is_written(house: &House) {
    house.make(json!([{"name": "year", "kind": "numeric"}, flat(4, "cosine")])).await;
    let good: Vec<_> =
        (1..9).map(|number| json!({"id": number.to_string(), "place": [number, 1, 0, 0]})).collect();
    house.load(&good).await;
    let before = house.ids(json!({"vector": [1, 1, 0, 0], "k": 99})).await;
    let bad = [
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
    for (vector, code) in &bad {
        let told = |reply: Reply| {
            let problem = reply.refused(422, code);
            assert_eq!(problem["at"], "place", "{problem}");
        };
        told(house.put(&document("new"), &json!({"year": 1, "place": vector})).await);
        told(house.put(&document("1"), &json!({"year": 1, "place": vector})).await);
        told(house.patch(&document("1"), &json!({"year": 1, "place": vector})).await);
        let batch = json!([{"id": "new", "place": vector}, {"id": "8", "place": [8, 1, 0, 0]}]);
        let reply = house.post(&path(DOCS, "documents"), &batch).await.expect(200);
        assert_eq!(reply["results"][0]["error"]["code"], *code, "{reply}");
        assert_eq!(reply["results"][1]["status"], "unchanged", "{reply}");
    }
    assert_eq!(house.count("*").await, 8, "nothing was written");
    assert_eq!(house.count("@year:[1 1]").await, 0, "not a part of it either");
    assert_eq!(house.ids(json!({"vector": [1, 1, 0, 0], "k": 99})).await, before, "the index is as it was");
}

pub(crate) async fn good_vectors_at_the_edge_are_taken(house: &House) {
    house.make(json!([flat(4, "cosine")])).await;
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
        house.put(&document(&id), &json!({"place": blob(&values)})).await.expect(201);
        let read = house.get(&format!("{}?vectors=true", document(&id))).await.expect(200);
        assert_eq!(read["fields"]["place"], blob(&values), "kept byte for byte");
        let hits = house.search(json!({"vector": blob(&values), "k": 9})).await;
        let own = hits.iter().find(|hit| hit.id == id).unwrap_or_else(|| panic!("{values:?} is not found"));
        assert!(own.distance.abs() < 1e-4, "{values:?}: {own:?}");
        assert_eq!(hits.len(), number + 1);
        assert!(hits.is_sorted_by(|one, next| one.distance <= next.distance), "{hits:?}");
    }
}

pub(crate) async fn bad_numbers_and_tags_are_refused(house: &House) {
    house
        .make(json!([
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
        let problem = house.put(&document("1"), &json!({(field): value})).await.refused(422, code);
        assert_eq!(problem["at"], field, "{problem}");
    }
    assert_eq!(house.count("*").await, 0);
    for number in ["7", "-7.5", "1e3", "9007199254740993", "0.1"] {
        house.put(&document("1"), &json!({"year": number})).await;
        let exact = format!("@year:[{number} {number}]");
        assert_eq!(house.count(&exact).await, 1, "{exact}");
    }
}
