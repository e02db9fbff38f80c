//! Documents by key, through the service: no interface exposes these operations yet.

use std::{collections::BTreeSet, time::Duration};

use nearfield::service::{Context, Fields, Outcome, Value};
use serde_json::json;

use crate::test_store::{DOCS, TestStore, document, flat, path};

fn cx() -> Context {
    Context::local()
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    let field = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::Bytes(value.as_bytes().to_vec()));
    pairs.iter().map(field).collect()
}

pub(crate) async fn sets_fields_and_creates_a_missing_document(store: &TestStore) {
    store.create(json!([{"name": "rank", "kind": "numeric"}])).await;
    let (service, key) = (store.service(), format!("{DOCS}:a"));
    let created = service.put_key(&cx(), &key, fields(&[("rank", "1"), ("other", "x")])).await.unwrap();
    assert_eq!(created.outcome, Outcome::Created);
    let updated = service.put_key(&cx(), &key, fields(&[("rank", "2")])).await.unwrap();
    assert_eq!(updated.outcome, Outcome::Updated);
    let found = store.get(&document("a")).await.expect(200);
    assert_eq!(found["fields"], json!({"rank": 2, "other": "x"}));
    assert_eq!(store.count("@rank:[2 2]").await, 1);
    let rejected = service.put_key(&cx(), &key, fields(&[("rank", "soon")])).await.unwrap_err();
    assert_eq!(rejected.code, "field-value");
    // A key that no collection includes.
    service.put_key(&cx(), "free", fields(&[("rank", "soon")])).await.unwrap();
    let free = service.get_key(&cx(), "free").await.unwrap().unwrap();
    assert_eq!((&*free.key, &*free.fields[0].value), (&b"free"[..], &b"soon"[..]));
}

pub(crate) async fn concurrent_sets_of_different_fields_are_all_kept(store: &TestStore) {
    let service = store.service();
    let sets = (0..16).map(|number| {
        let service = service.clone();
        tokio::spawn(async move {
            service.put_key(&cx(), "shared", fields(&[(&format!("f{number}"), "1")])).await.unwrap().outcome
        })
    });
    let mut created = 0;
    for set in sets.collect::<Vec<_>>() {
        created += usize::from(set.await.unwrap() == Outcome::Created);
    }
    assert_eq!(created, 1);
    assert_eq!(service.get_key(&cx(), "shared").await.unwrap().unwrap().fields.len(), 16);
}

pub(crate) async fn expires_and_deletes_documents_by_key(store: &TestStore) {
    store.create(json!([flat(2, "l2")])).await;
    store.put(&path(DOCS, "documents/a"), &json!({"place": [1, 1]})).await.expect(201);
    let (service, key) = (store.service(), format!("{DOCS}:a"));
    assert!(service.expire_key(&cx(), &key, Some(Duration::from_secs(600))).await.unwrap());
    assert!(service.get_key(&cx(), &key).await.unwrap().unwrap().expires_at_ms.is_some());
    assert!(service.expire_key(&cx(), &key, None).await.unwrap());
    assert_eq!(service.get_key(&cx(), &key).await.unwrap().unwrap().expires_at_ms, None);
    assert!(!service.expire_key(&cx(), "nowhere", None).await.unwrap());
    let keys = [key.clone(), "nowhere".to_owned()];
    assert_eq!(service.delete_keys(&cx(), &keys).await.unwrap(), 1);
    assert_eq!(service.get_key(&cx(), &key).await.unwrap(), None);
    store.get(&document("a")).await.expect_error(404, "document-not-found");
}

pub(crate) async fn a_scan_returns_every_key_with_a_prefix(store: &TestStore) {
    let service = store.service();
    let expected: BTreeSet<Vec<u8>> = (0..250).map(|number| format!("scan:{number}").into_bytes()).collect();
    for key in &expected {
        let key = std::str::from_utf8(key).unwrap();
        service.put_key(&cx(), key, fields(&[("n", "1")])).await.unwrap();
    }
    service.put_key(&cx(), "other:1", fields(&[("n", "1")])).await.unwrap();
    let (mut keys, mut after) = (BTreeSet::new(), None);
    for _ in 0..10_000 {
        let page = service.scan(&cx(), "scan:", after.as_deref(), 100).await.unwrap();
        keys.extend(page.keys);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((keys, after), (expected, None));
    assert_eq!(service.scan(&cx(), "", Some("!"), 10).await.unwrap_err().code, "cursor");
}
