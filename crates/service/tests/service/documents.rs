//! Documents: writing, reading, patching, expiry and deletion.

use std::time::Duration;

use service::{Error, ErrorKind, Expected, Fields, Outcome, Patch, Put, PutResult, Value};

use crate::fixture::{self, COLLECTION, Fixture, cx, field, patch, put, text, text_fields};

fn code(result: Result<PutResult, Error>) -> (ErrorKind, &'static str) {
    let error = result.expect_err("expected a rejection");
    (error.kind, error.code)
}

#[tokio::test]
async fn writes_finds_replaces_and_deletes_a_document() {
    let fixture = Fixture::new().await;
    let created = fixture.put("1", "apple", "a sweet fruit").await.unwrap();
    assert_eq!((created.id.as_str(), created.outcome, created.truncated), ("1", Outcome::Created, false));
    fixture.put("2", "router", "network cable").await.unwrap();
    assert_eq!(fixture.ids("apple fruit", 2).await, ["1", "2"]);

    let document = fixture.get("1").await.unwrap();
    assert_eq!(&*document.key, b"a:1");
    assert_eq!(document.seq, created.seq);
    assert_eq!(field(&document, "title"), Some("apple"));
    assert_eq!(document.expires_at_ms, None);

    let changed = fixture.put("1", "server", "network port").await.unwrap();
    assert_eq!(changed.outcome, Outcome::Updated);
    assert!(changed.seq > created.seq);
    assert_eq!(fixture.ids("server network port", 1).await, ["1"]);
    assert_eq!(fixture.ids("apple fruit", 9).await.len(), 2);

    assert!(fixture.service.delete(&cx(), COLLECTION, "1", Expected::Any).await.unwrap());
    assert!(!fixture.service.delete(&cx(), COLLECTION, "1", Expected::Any).await.unwrap());
    let error = fixture.get("1").await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::NotFound, "document-not-found"));
    assert_eq!(fixture.ids("server network port", 9).await, ["2"]);
}

#[tokio::test]
async fn rejects_a_change_with_more_fields_than_a_document_may_have() {
    let fixture = Fixture::new().await;
    fixture.put("1", "apple", "a sweet fruit").await.unwrap();
    let change = async |set: usize, remove: usize| {
        let set = (0..set).map(|number| (format!("s{number}"), Value::Number(1.0))).collect();
        let remove = (0..remove).map(|number| format!("r{number}")).collect();
        fixture.service.patch(&cx(), COLLECTION, Patch { set, remove, ..patch("1", &[]) }).await
    };
    change(500, 524).await.unwrap();
    // Removed fields do not count towards the limit, and every field of the document is checked for removal.
    let results = [change(0, 1025).await, change(1025, 0).await, change(500, 525).await];
    for result in results {
        assert_eq!(code(result), (ErrorKind::Invalid, "too-many-fields"));
    }
    let fields = (0..1025).map(|number| (format!("f{number}"), Value::Number(1.0))).collect();
    let results =
        fixture.service.put(&cx(), COLLECTION, vec![Put { fields, ..put("2", &[]) }]).await.unwrap();
    assert_eq!(code(results.into_iter().next().unwrap()), (ErrorKind::Invalid, "too-many-fields"));
}

#[tokio::test]
async fn acknowledged_writes_survive_a_restart() {
    let fixture = Fixture::new().await;
    for (id, title) in [("1", "apple"), ("2", "invoice"), ("3", "winter")] {
        fixture.put(id, title, "text").await.unwrap();
    }
    fixture.service.delete(&cx(), COLLECTION, "3", Expected::Any).await.unwrap();
    let fixture = fixture.reopen();
    assert_eq!(fixture.service.default_collection().unwrap(), COLLECTION);
    assert_eq!(fixture.ids("invoice text", 9).await, ["2", "1"]);
}

#[tokio::test]
async fn writing_an_identical_document_changes_and_embeds_nothing() {
    let fixture = Fixture::new().await;
    let first = fixture.put("1", "apple", "pear").await.unwrap();
    let embedded = fixture.service.activity().embedded_texts;
    assert_eq!(embedded, 1);
    let again = fixture.put("1", "apple", "pear").await.unwrap();
    assert_eq!((again.outcome, again.seq), (Outcome::Unchanged, first.seq));
    // The order of fields does not distinguish documents.
    let reordered = fixture.put_one(put("1", &[("content", "pear"), ("title", "apple")])).await.unwrap();
    assert_eq!((reordered.outcome, reordered.seq), (Outcome::Unchanged, first.seq));
    let fixture = fixture.reopen();
    assert_eq!(fixture.put("1", "apple", "pear").await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(fixture.service.activity().embedded_texts, 0);
}

#[tokio::test]
async fn a_change_outside_the_embedded_text_keeps_the_vector() {
    let fixture = Fixture::new().await;
    fixture.put("1", "apple", "pear").await.unwrap();
    let with_year = put("1", &[("title", "apple"), ("content", "pear"), ("year", "2024")]);
    assert_eq!(fixture.put_one(with_year).await.unwrap().outcome, Outcome::Updated);
    let tagged = fixture.service.patch(&cx(), COLLECTION, patch("1", &[("tags", "fruit")])).await.unwrap();
    assert_eq!(tagged.outcome, Outcome::Updated);
    assert_eq!(fixture.service.activity().embedded_texts, 1);
    let distance = fixture.distance_from(COLLECTION, "1", "apple pear").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
    assert_eq!(
        fixture.service.count(&cx(), COLLECTION, Some("@tags:{fruit} @year:[2024 2024]")).await.unwrap(),
        1
    );
}

#[tokio::test]
async fn a_patch_sets_and_removes_fields_and_embeds_changed_text() {
    let fixture = Fixture::new().await;
    fixture.put_one(put("1", &[("title", "apple"), ("content", "pear"), ("note", "x")])).await.unwrap();
    let change = Patch { remove: vec!["note".to_owned()], ..patch("1", &[("title", "router")]) };
    let changed = fixture.service.patch(&cx(), COLLECTION, change.clone()).await.unwrap();
    assert_eq!(changed.outcome, Outcome::Updated);
    let document = fixture.get("1").await.unwrap();
    assert_eq!((field(&document, "title"), field(&document, "content")), (Some("router"), Some("pear")));
    assert_eq!(field(&document, "note"), None);
    let distance = fixture.distance_from(COLLECTION, "1", "router pear").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");

    let again = fixture.service.patch(&cx(), COLLECTION, change).await.unwrap();
    assert_eq!((again.outcome, again.seq), (Outcome::Unchanged, changed.seq));
    let missing = fixture.service.patch(&cx(), COLLECTION, patch("9", &[("title", "x")])).await;
    assert_eq!(code(missing), (ErrorKind::NotFound, "document-not-found"));
    let emptied = Patch { remove: vec!["title".into(), "content".into()], ..patch("1", &[]) };
    assert_eq!(
        code(fixture.service.patch(&cx(), COLLECTION, emptied).await),
        (ErrorKind::Invalid, "text-empty")
    );
}

#[tokio::test]
async fn a_write_whose_precondition_fails_is_rejected() {
    let fixture = Fixture::new().await;
    let put_if = |expected| Put { expected, ..put("1", &[("title", "apple")]) };
    assert_eq!(code(fixture.put_one(put_if(Expected::Seq(1))).await), (ErrorKind::Conflict, "conflict"));
    let created = fixture.put_one(put_if(Expected::Absent)).await.unwrap();
    assert_eq!(code(fixture.put_one(put_if(Expected::Absent)).await), (ErrorKind::Conflict, "conflict"));
    assert_eq!(
        code(fixture.put_one(put_if(Expected::Seq(created.seq + 1))).await),
        (ErrorKind::Conflict, "conflict")
    );
    let again = fixture.put_one(put_if(Expected::Seq(created.seq))).await.unwrap();
    assert_eq!(again.outcome, Outcome::Unchanged);

    let change = |expected| Patch { expected, ..patch("1", &[("title", "pear")]) };
    let stale = fixture.service.patch(&cx(), COLLECTION, change(Expected::Seq(created.seq + 1))).await;
    assert_eq!(code(stale), (ErrorKind::Conflict, "conflict"));
    let changed = fixture.service.patch(&cx(), COLLECTION, change(Expected::Seq(created.seq))).await.unwrap();
    let stale = fixture.service.delete(&cx(), COLLECTION, "1", Expected::Seq(created.seq)).await.unwrap_err();
    assert_eq!(stale.kind, ErrorKind::Conflict);
    assert!(fixture.service.delete(&cx(), COLLECTION, "1", Expected::Seq(changed.seq)).await.unwrap());
}

#[tokio::test]
async fn a_batch_returns_one_result_per_document_in_order() {
    let fixture = Fixture::new().await;
    let number = |value: f64| ("year".to_owned(), Value::Number(value));
    let with = |id: &str, extra: (String, Value)| {
        let mut put = put(id, &[("title", "plum")]);
        put.fields.push(extra);
        put
    };
    let puts = vec![
        put("a", &[("title", "apple")]),
        put("", &[("title", "apple")]),
        with("c", number(2024.0)),
        with("d", number(f64::NAN)),
        put("e", &[("title", " "), ("content", "")]),
        with("f", ("year".to_owned(), text("soon"))),
        with("g", ("tags".to_owned(), Value::Tags(vec!["x".into(), "y,z".into()]))),
        with("h", ("embedding".to_owned(), Value::Vector(vec![1.0; 3]))),
        with("i", ("embedding".to_owned(), Value::Bytes(vec![0; 7]))),
        put("j", &[("title", "pear")]),
    ];
    let results = fixture.service.put(&cx(), COLLECTION, puts).await.unwrap();
    let outcomes: Vec<&str> = results
        .iter()
        .map(|result| match result {
            Ok(result) => result.id.as_str(),
            Err(error) => error.code,
        })
        .collect();
    let expected = [
        "a",
        "id",
        "c",
        "number",
        "text-empty",
        "field-value",
        "tag",
        "vector-dimensions",
        "vector-dimensions",
        "j",
    ];
    assert_eq!(outcomes, expected);
    for result in results.into_iter().filter_map(Result::err) {
        assert_eq!(result.kind, ErrorKind::Invalid, "{result}");
        assert!(result.at.is_some(), "{result}");
    }
    assert_eq!(fixture.service.count(&cx(), COLLECTION, None).await.unwrap(), 3);
}

#[tokio::test]
async fn the_last_write_to_an_id_in_a_batch_wins() {
    let fixture = Fixture::new().await;
    let puts = vec![
        put("1", &[("title", "apple")]),
        put("2", &[("title", "plum")]),
        put("1", &[("title", "router")]),
        put("1", &[("title", "router")]),
    ];
    let results = fixture.service.put(&cx(), COLLECTION, puts).await.unwrap();
    let outcomes: Vec<Outcome> = results.iter().map(|result| result.as_ref().unwrap().outcome).collect();
    assert_eq!(outcomes, [Outcome::Created, Outcome::Created, Outcome::Updated, Outcome::Unchanged]);
    assert_eq!(field(&fixture.get("1").await.unwrap(), "title"), Some("router"));
    let distance = fixture.distance_from(COLLECTION, "1", "router").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
}

#[tokio::test]
async fn values_are_stored_in_the_form_required_by_the_schema() {
    let fixture = Fixture::new().await;
    let vector: Vec<f32> = (0..16).map(|n| n as f32 - 4.5).collect();
    let fields: Fields = vec![
        ("title".into(), text("apple")),
        ("tags".into(), Value::Tags(vec!["Red".into(), "sweet".into()])),
        ("year".into(), Value::Number(2024.5)),
        ("embedding".into(), Value::Vector(vector.clone())),
        ("anything".into(), Value::Bytes(vec![0, 255])),
    ];
    fixture.put_one(Put { fields, ..put("1", &[]) }).await.unwrap();
    let document = fixture.get("1").await.unwrap();
    assert_eq!(document.field(b"tags"), Some(&b"Red,sweet"[..]));
    assert_eq!(document.field(b"year"), Some(&b"2024.5"[..]));
    assert_eq!(document.field(b"anything"), Some(&[0, 255][..]));
    let blob: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(document.field(b"embedding"), Some(blob.as_slice()));
    // A document that provides its vector is not embedded.
    assert_eq!(fixture.service.activity().embedded_texts, 0);
    assert_eq!(
        fixture.service.count(&cx(), COLLECTION, Some("@tags:{red} @year:[2024 2025]")).await.unwrap(),
        1
    );
}

#[tokio::test]
async fn reports_a_text_that_exceeds_the_model_input() {
    let fixture = Fixture::new().await;
    let long = "apple ".repeat(40);
    assert!(fixture.put("1", &long, "").await.unwrap().truncated);
    assert!(!fixture.put("2", "apple", "").await.unwrap().truncated);
    assert!(fixture.search(&long, 1).await.truncated);
    assert!(!fixture.search("apple", 1).await.truncated);
}

#[tokio::test]
async fn documents_expire_after_their_ttl() {
    let fixture = Fixture::new().await;
    let expiring =
        |seconds| Put { ttl: Some(Duration::from_secs(seconds)), ..put("1", &[("title", "apple")]) };
    fixture.put_one(expiring(10)).await.unwrap();
    fixture.put("2", "apple", "").await.unwrap();
    let first_expiry = fixture.get("1").await.unwrap().expires_at_ms.unwrap();
    fixture.clock.advance(Duration::from_secs(6));
    // Writing the same document again restarts its expiry and embeds nothing.
    let embedded = fixture.service.activity().embedded_texts;
    assert_eq!(fixture.put_one(expiring(10)).await.unwrap().outcome, Outcome::Updated);
    assert_eq!(fixture.get("1").await.unwrap().expires_at_ms, Some(first_expiry + 6000));
    assert_eq!(fixture.service.activity().embedded_texts, embedded);
    fixture.clock.advance(Duration::from_secs(6));
    assert_eq!(fixture.ids("apple", 9).await.len(), 2);
    fixture.clock.advance(Duration::from_secs(6));
    assert_eq!(fixture.get("1").await.unwrap_err().code, "document-not-found");
    assert_eq!(fixture.ids("apple", 9).await, ["2"]);
    assert_eq!(fixture.service.count(&cx(), COLLECTION, None).await.unwrap(), 1);

    // A patch can set, keep or remove an expiry.
    let ttl = |ttl| Patch { ttl, ..patch("2", &[]) };
    let patched = async |change| fixture.service.patch(&cx(), COLLECTION, change).await;
    assert_eq!(patched(ttl(Some(Some(Duration::from_secs(5))))).await.unwrap().outcome, Outcome::Updated);
    let end = fixture.get("2").await.unwrap().expires_at_ms;
    assert!(end.is_some());
    patched(patch("2", &[("title", "pear")])).await.unwrap();
    assert_eq!(fixture.get("2").await.unwrap().expires_at_ms, end);
    assert_eq!(patched(ttl(None)).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(patched(ttl(Some(None))).await.unwrap().outcome, Outcome::Updated);
    assert_eq!(fixture.get("2").await.unwrap().expires_at_ms, None);
    assert_eq!(patched(ttl(Some(None))).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(code(patched(ttl(Some(Some(Duration::ZERO)))).await), (ErrorKind::Invalid, "ttl"));
}

#[tokio::test]
async fn documents_inherit_the_default_ttl_of_their_collection() {
    let fixture = Fixture::empty();
    let schema = service::Schema { ttl: Some(Duration::from_secs(60)), ..fixture::article("a:") };
    fixture.create(COLLECTION, schema).await;
    fixture.put("1", "apple", "").await.unwrap();
    let end = fixture.get("1").await.unwrap().expires_at_ms.unwrap();
    fixture.clock.advance(Duration::from_secs(20));
    assert_eq!(fixture.put("1", "apple", "").await.unwrap().outcome, Outcome::Updated);
    assert_eq!(fixture.get("1").await.unwrap().expires_at_ms, Some(end + 20_000));
    assert_eq!(fixture.service.activity().embedded_texts, 1);
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(fixture.get("1").await.unwrap_err().code, "document-not-found");
}

#[tokio::test]
async fn scrolls_counts_and_deletes_documents_by_filter() {
    let fixture = Fixture::new().await;
    let puts = (0..2500)
        .map(|number| {
            let parity = ["even", "odd"][number % 2];
            Put {
                fields: text_fields(&[("title", "apple"), ("tags", parity)]),
                ..put(&number.to_string(), &[])
            }
        })
        .collect();
    let results = fixture.service.put(&cx(), COLLECTION, puts).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    // A text shared by several documents is embedded once.
    assert_eq!(fixture.service.activity().embedded_texts, 1);

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = fixture
            .service
            .scroll(&cx(), COLLECTION, Some("@tags:{odd}"), after.as_deref(), 300)
            .await
            .unwrap();
        seen.extend(page.documents.iter().map(|document| String::from_utf8(document.key.to_vec()).unwrap()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let odd: Vec<String> =
        (0..2500).filter(|number| number % 2 == 1).map(|number| format!("a:{number}")).collect();
    assert_eq!(seen, odd);

    let count = async |filter| fixture.service.count(&cx(), COLLECTION, filter).await;
    assert_eq!(count(None).await.unwrap(), 2500);
    assert_eq!(count(Some("-@tags:{odd}")).await.unwrap(), 1250);
    assert_eq!(fixture.service.delete_matching(&cx(), COLLECTION, "@tags:{odd}").await.unwrap(), 1250);
    assert_eq!(fixture.service.delete_matching(&cx(), COLLECTION, "@tags:{odd}").await.unwrap(), 0);
    assert_eq!(count(None).await.unwrap(), 1250);
    assert_eq!(fixture.service.delete_matching(&cx(), COLLECTION, "*").await.unwrap(), 1250);
    assert_eq!(count(None).await.unwrap(), 0);

    for filter in ["@tags:{", "@nowhere:{x}"] {
        let error = count(Some(filter)).await.unwrap_err();
        assert_eq!((error.kind, error.at.as_deref()), (ErrorKind::Invalid, Some("filter")), "{error}");
    }
    for limit in [0, 1001] {
        let error = fixture.service.scroll(&cx(), COLLECTION, None, None, limit).await.unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Invalid, "limit"));
    }
}

#[tokio::test]
async fn finds_an_id_under_every_prefix_of_its_collection() {
    let fixture = Fixture::empty();
    fixture.create("new", fixture::article("new:")).await;
    let mut both = fixture::article("old:");
    both.prefixes.push(b"new:".to_vec());
    fixture.create(COLLECTION, both).await;
    fixture.service.put(&cx(), "new", vec![put("1", &[("title", "apple")])]).await.unwrap();
    let document = fixture.get("1").await.unwrap();
    assert_eq!(&*document.key, b"new:1");
    assert_eq!(fixture.ids("apple", 9).await, ["1"]);
    // An existing document keeps its key; a new one gets the first prefix.
    fixture.service.patch(&cx(), COLLECTION, patch("1", &[("title", "pear")])).await.unwrap();
    assert_eq!(fixture.put("2", "plum", "").await.unwrap().outcome, Outcome::Created);
    assert_eq!(&*fixture.get("2").await.unwrap().key, b"old:2");
    assert!(fixture.service.delete(&cx(), COLLECTION, "1", Expected::Any).await.unwrap());
    assert_eq!(fixture.service.get(&cx(), "new", "1").await.unwrap_err().code, "document-not-found");
}

#[tokio::test]
async fn a_new_backup_can_start_as_soon_as_the_previous_one_is_read() {
    let fixture = Fixture::new().await;
    for _ in 0..200 {
        let mut backup = fixture.service.back_up(&cx()).await.unwrap();
        let mut bytes = 0;
        while let Some(chunk) = backup.next().await {
            bytes += chunk.unwrap().len();
        }
        assert_ne!(bytes, 0);
    }
}
