//! Documents by key.

use super::*;

#[tokio::test]
async fn a_document_written_by_key_is_found_by_the_collections_that_include_it() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let prefix = String::from_utf8(schema().prefixes[0].clone()).unwrap();
    let key = format!("{prefix}by-key");
    let text = |name: &str, text: &str| (name.to_owned(), Value::Bytes(text.as_bytes().to_vec()));

    let put = service.put_key(&cx(), &key, vec![text("title", "melon"), text("extra", "1")]).await.unwrap();
    assert_eq!((put.id.as_str(), put.outcome), (key.as_str(), Outcome::Created));
    let found = service.search(&cx(), SearchRequest::text("melon", 1)).await.unwrap();
    assert_eq!(found.hits[0].id, "by-key");

    // The other fields stay, and the vector follows the text.
    let put = service.put_key(&cx(), &key, vec![text("title", "grape")]).await.unwrap();
    assert_eq!(put.outcome, Outcome::Updated);
    let found = service.search(&cx(), SearchRequest::text("grape", 1)).await.unwrap();
    assert_eq!(found.hits[0].id, "by-key");
    let document = service.get_key(&cx(), &key).await.unwrap().unwrap();
    let field = |name: &str| {
        let field = document.fields.iter().find(|field| &*field.name == name.as_bytes());
        field.map(|field| String::from_utf8_lossy(&field.value).into_owned())
    };
    assert_eq!((field("title").as_deref(), field("extra").as_deref()), (Some("grape"), Some("1")));
    assert_eq!(document.expires_at_ms, None);

    assert!(service.expire_key(&cx(), &key, Some(Duration::from_secs(60))).await.unwrap());
    assert!(service.get_key(&cx(), &key).await.unwrap().unwrap().expires_at_ms.is_some());
    assert!(service.expire_key(&cx(), &key, None).await.unwrap());
    assert_eq!(service.get_key(&cx(), &key).await.unwrap().unwrap().expires_at_ms, None);
    assert!(!service.expire_key(&cx(), "nowhere", None).await.unwrap());

    let keys = [key.clone(), "nowhere".to_owned()];
    assert_eq!(service.delete_keys(&cx(), &keys).await.unwrap(), 1);
    assert_eq!(service.get_key(&cx(), &key).await.unwrap(), None);
}

#[tokio::test]
async fn a_scan_returns_every_key_once_whether_or_not_a_collection_includes_it() {
    let dir = TempDir::new().unwrap();
    let service = service(dir.path()).await;
    let field = vec![("n".to_owned(), Value::Number(1.0))];
    let expected: Vec<String> = (0..25).map(|number| format!("scan:{number:02}")).collect();
    for key in expected.iter().map(String::as_str).chain(["other:1"]) {
        service.put_key(&cx(), key, field.clone()).await.unwrap();
    }
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = service.scan(&cx(), "scan:", after.as_deref(), 10).await.unwrap();
        assert!(page.keys.len() <= 10);
        keys.extend(page.keys.into_iter().map(|key| String::from_utf8(key).unwrap()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(keys, expected);
    for (after, limit, code) in [(None, 0, "limit"), (None, 1001, "limit"), (Some("!"), 10, "cursor")] {
        assert_eq!(service.scan(&cx(), "", after, limit).await.unwrap_err().code, code);
    }
    assert_eq!(service.put_key(&cx(), "", field).await.unwrap_err().code, "id");
}
