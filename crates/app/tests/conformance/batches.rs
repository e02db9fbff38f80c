//! Many documents at once, and many writers.

use std::collections::BTreeSet;

use serde_json::json;

use crate::house::{DOCS, House, document, flat, path};

async fn make(house: &House) {
    house
        .make(json!([
            {"name": "tags", "kind": "tag"},
            {"name": "year", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
}

pub(crate) async fn a_bad_document_does_not_spoil_the_batch(house: &House) {
    make(house).await;
    let documents = json!([
        {"id": "a", "year": 1, "place": [1, 1]},
        {"year": 2},
        {"id": "c", "year": "soon"},
        {"id": "d", "place": [1, 2, 3]},
        {"id": "e", "tags": ["x", "y,z"]},
        {"id": "f", "place": {"base64": "AAAA"}},
        {"id": "g", "title": ["x"]},
        {"id": "h", "year": true},
        {"id": "i", "place": {"base64": "AACAfwAAgD8="}},
        {"id": "a", "year": 10, "place": [2, 2]},
        {"id": "k", "year": 3, "place": [3, 3]},
        {"id": "k", "year": 3, "place": [3, 3]},
    ]);
    let reply = house.post(&path(DOCS, "documents"), &documents).await.expect(200);
    let fate = |result: &serde_json::Value| match result["error"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None => format!("{} {}", result["id"].as_str().unwrap(), result["status"].as_str().unwrap()),
    };
    let fates: Vec<String> = reply["results"].as_array().unwrap().iter().map(fate).collect();
    let expected = [
        "a created",
        "id-missing",
        "field-value",
        "vector-dimensions",
        "tag",
        "vector-dimensions",
        "field-kind",
        "field-value",
        "vector-value",
        "a updated",
        "k created",
        "k unchanged",
    ];
    assert_eq!(fates, expected, "{reply}");
    assert_eq!(house.everything().await, BTreeSet::from(["a".to_owned(), "k".to_owned()]));
    assert_eq!(house.get(&document("a")).await.json["fields"]["year"], 10, "the later one stands");
}

pub(crate) async fn what_is_acknowledged_is_found_at_once(house: &House) {
    make(house).await;
    for number in 0..200 {
        let id = number.to_string();
        let body = json!({"place": [number, 0], "tags": [format!("t{number}")], "year": number});
        house.put(&document(&id), &body).await.expect(201);
        assert_eq!(house.ids(json!({"vector": [number, 0], "k": 1})).await, [id.as_str()]);
        assert_eq!(house.count(&format!("@tags:{{t{number}}}")).await, 1);
        if number % 3 == 0 {
            house.delete(&document(&id)).await.expect(204);
            assert!(!house.ids(json!({"vector": [number, 0], "k": 3})).await.contains(&id));
        } else {
            house.patch(&document(&id), &json!({"place": [number, 9000]})).await.expect(200);
            assert_eq!(house.ids(json!({"vector": [number, 9000], "k": 1})).await, [id.as_str()]);
        }
    }
    let batch: Vec<_> = (0..1500).map(|number| json!({"id": format!("b{number}"), "year": -1})).collect();
    house.load(&batch).await;
    assert_eq!(house.count("@year:[-1 -1]").await, 1500);
}

pub(crate) async fn writers_at_once_lose_nothing(house: &House) {
    make(house).await;
    let write = async |writer: usize| {
        for batch in 0..5 {
            let documents: Vec<_> = (0..40)
                .map(|number| {
                    // Half of the ids are written by all.
                    let id = if number % 2 == 0 {
                        format!("shared-{batch}-{number}")
                    } else {
                        format!("{writer}-{batch}-{number}")
                    };
                    json!({"id": id, "year": writer, "tags": [format!("w{writer}")], "place": [writer, batch]})
                })
                .collect();
            house.load(&documents).await;
        }
    };
    tokio::join!(write(0), write(1), write(2), write(3));
    let everything = house.everything().await;
    assert_eq!(everything.len(), 5 * 20 * 5);
    assert_eq!(house.count("*").await, 500);
    // Every document is one writer's whole.
    let mut total = 0;
    for writer in 0..4 {
        let one = format!("@year:[{writer} {writer}]");
        total += house.count(&one).await;
        assert_eq!(house.count(&format!("{one} @tags:{{w{writer}}}")).await, house.count(&one).await);
    }
    assert_eq!(total, 500);
}

pub(crate) async fn patches_at_once_of_one_document_all_count(house: &House) {
    make(house).await;
    house.put(&document("1"), &json!({"year": 0})).await.expect(201);
    let patch = async |writer: usize| {
        for number in 0..10 {
            let field = format!("f{writer}-{number}");
            let reply = house.patch(&document("1"), &json!({ field: "x" })).await;
            assert_eq!(reply.status, 200, "{}", reply.json);
        }
    };
    tokio::join!(patch(0), patch(1), patch(2), patch(3));
    let fields = house.get(&document("1")).await.json["fields"].clone();
    assert_eq!(fields.as_object().unwrap().len(), 1 + 40, "{fields}");
}
