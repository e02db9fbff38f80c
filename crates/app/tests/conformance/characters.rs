//! Unicode and special characters in ids, tags, texts and field names.

use std::collections::BTreeSet;

use serde_json::json;

use crate::test_store::{TestStore, document, encoded, flat};

/// Words with every character that is special in keys, tags, filters, scripts or patterns.
pub(crate) const WORDS: &[&str] = &[
    "two words",
    "a-b",
    "C++",
    "c#",
    "$100",
    "50%",
    "*",
    "a*b?c",
    "[x]",
    "{hash} tag",
    "{hash tag}",
    "(x)",
    "a|b",
    "a&b",
    "\"quoted\"",
    "it's",
    "back\\slash",
    "\\",
    "\\\\n",
    "a/b",
    "..",
    "a:b",
    "@field",
    "~x",
    "-x",
    "=>",
    "x=>[KNN 1 @v $v]",
    "a;b",
    "<b>",
    "^caret`",
    "w'x*'",
    "%s%d",
    "naïve café",
    "日本語",
    "\u{1F980} crab",
    "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
    "שלום",
    "e\u{301}",
    "nbsp\u{a0}here",
    "the",
    "not",
    "inf",
    "0",
    "1e5",
];

pub(crate) async fn gets_documents_by_ids_with_special_characters(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    let long = "é".repeat(256);
    let ids: Vec<&str> = WORDS.iter().copied().chain([".", long.as_str(), " "]).collect();
    for (number, id) in ids.iter().enumerate() {
        let response = store.put(&document(id), &json!({"place": [number, 0], "word": id})).await;
        assert_eq!((response.status, &response.json["id"]), (201, &json!(id)), "{id:?}: {}", response.json);
    }
    let expected: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(store.all_ids().await, expected);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(store.get(&document(id)).await.expect(200)["fields"]["word"], *id);
        assert_eq!(store.ids(json!({"vector": [number, 0], "k": 1})).await, [*id]);
    }
    for id in &ids {
        store.delete(&document(id)).await.expect(204);
    }
    assert_eq!(store.count("*").await, 0);
}

pub(crate) async fn filters_by_tags_with_special_characters(store: &TestStore) {
    store
        .create(json!([
            {"name": "tags", "kind": "tag", "separator": ","},
            {"name": "exact", "kind": "tag", "separator": ";", "case_sensitive": true},
            flat(2, "l2"),
        ]))
        .await;
    let documents: Vec<_> = WORDS
        .iter()
        .enumerate()
        .map(|(number, word)| {
            let exact = word.replace(';', "_");
            json!({"id": format!("{number}"), "tags": [word, "every"], "exact": [exact], "place": [number, 1]})
        })
        .collect();
    store.load(&documents).await;
    for (number, word) in WORDS.iter().enumerate() {
        let id = number.to_string();
        for filter in [tag_filter("tags", word), tag_filter("exact", &word.replace(';', "_"))] {
            assert_eq!(store.count(&filter).await, 1, "{filter}");
            let found = store.ids(json!({"vector": [0, 0], "filter": filter, "k": 9})).await;
            assert_eq!(found, [id.as_str()], "{filter}");
            let others = format!("@tags:{{every}} -{filter}");
            assert_eq!(store.count(&others).await, WORDS.len() as u64 - 1, "{others}");
        }
        let tags = store.get(&document(&id)).await.json["fields"]["tags"].clone();
        assert_eq!(tags, json!([word, "every"]));
    }
}

/// `@field:{word}` with every special character escaped.
pub(crate) fn tag_filter(field: &str, word: &str) -> String {
    let escaped: String = word
        .chars()
        .flat_map(|c| {
            let special = c.is_ascii() && !c.is_ascii_alphanumeric();
            special.then_some('\\').into_iter().chain([c])
        })
        .collect();
    format!("@{field}:{{{escaped}}}")
}

pub(crate) async fn returns_texts_and_unknown_fields_byte_for_byte(store: &TestStore) {
    store.create(json!([{"name": "title", "kind": "text"}, flat(2, "l2")])).await;
    let long = "\u{1F980} line\r\n\t\"\\ \u{0} ".repeat(2000);
    for (number, text) in WORDS.iter().copied().chain([long.as_str(), "", " ", "\u{feff}x"]).enumerate() {
        let id = number.to_string();
        store
            .put(&document(&id), &json!({"title": text, "more": text, "place": [number, 0]}))
            .await
            .expect(201);
        let fields = store.get(&document(&id)).await.expect(200)["fields"].clone();
        assert_eq!(fields, json!({"title": text, "more": text}));
        let hit = store.search(json!({"vector": [number, 0], "k": 1})).await.remove(0);
        assert_eq!(hit.fields["title"], text);
    }
    let bytes = json!({"base64": "AP8NCgD+"});
    store.put(&document("bytes"), &json!({"more": bytes})).await.expect(201);
    assert_eq!(store.get(&document("bytes")).await.json["fields"]["more"], bytes);
}

pub(crate) async fn accepts_field_names_with_special_characters(store: &TestStore) {
    let names = ["Code-1", "a b", "naïve", "日本", "x.y", "$x", "a:b", "it's", "__x", "__score"];
    let mut fields: Vec<_> = names.iter().map(|name| json!({"name": name, "kind": "tag"})).collect();
    fields
        .push(json!({"name": "a vector-1", "kind": "vector", "algorithm": "flat", "dim": 2, "metric": "l2"}));
    fields.push(json!({"name": "year-1", "kind": "numeric"}));
    store.create(json!(fields)).await;
    for (number, name) in names.iter().enumerate() {
        let id = number.to_string();
        let body = json!({(*name): ["x"], "a vector-1": [number, 0], "year-1": number});
        store.put(&document(&id), &body).await.expect(201);
        let escaped: String = name
            .chars()
            .flat_map(|c| {
                let special = c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_';
                special.then_some('\\').into_iter().chain([c])
            })
            .collect();
        let filter = format!("@{escaped}:{{x}} @year\\-1:[{number} {number}]");
        assert_eq!(store.count(&filter).await, 1, "{filter}");
        let hits = store.search(json!({"vector": [0, 0], "filter": filter, "fields": [name]})).await;
        assert_eq!(hits[0].fields, json!({(*name): ["x"]}), "{}", encoded(name));
    }
}
