//! The life of documents: written, read, changed, expired, taken away.

mod fixture;

use std::time::Duration;

use fixture::{COLLECTION, Fixture, cx, field, patch, put, text, text_fields};
use service::{Error, ErrorKind, Expected, Fields, Outcome, Patch, Put, PutResult, Value};

fn code(result: Result<PutResult, Error>) -> (ErrorKind, &'static str) {
    let error = result.expect_err("it should have been refused");
    (error.kind, error.code)
}

#[tokio::test]
async fn a_document_is_written_found_changed_and_taken_away() {
    let house = Fixture::new().await;
    let made = house.put("1", "apple", "a sweet fruit").await.unwrap();
    assert_eq!((made.id.as_str(), made.outcome, made.truncated), ("1", Outcome::Created, false));
    house.put("2", "router", "network cable").await.unwrap();
    assert_eq!(house.ids("apple fruit", 2).await, ["1", "2"]);

    let document = house.get("1").await.unwrap();
    assert_eq!(&*document.key, b"a:1");
    assert_eq!(document.seq, made.seq);
    assert_eq!(field(&document, "title"), Some("apple"));
    assert_eq!(document.expires_at_ms, None);

    let changed = house.put("1", "server", "network port").await.unwrap();
    assert_eq!(changed.outcome, Outcome::Updated);
    assert!(changed.seq > made.seq);
    assert_eq!(house.ids("server network port", 1).await, ["1"]);
    assert_eq!(house.ids("apple fruit", 9).await.len(), 2);

    assert!(house.service.delete(&cx(), COLLECTION, "1", Expected::Any).await.unwrap());
    assert!(!house.service.delete(&cx(), COLLECTION, "1", Expected::Any).await.unwrap());
    let gone = house.get("1").await.unwrap_err();
    assert_eq!((gone.kind, gone.code), (ErrorKind::NotFound, "document-not-found"));
    assert_eq!(house.ids("server network port", 9).await, ["2"]);
}

#[tokio::test]
async fn a_change_names_no_more_fields_than_a_document_may_have() {
    let house = Fixture::new().await;
    house.put("1", "apple", "a sweet fruit").await.unwrap();
    let change = async |set: usize, remove: usize| {
        let set = (0..set).map(|number| (format!("s{number}"), Value::Number(1.0))).collect();
        let remove = (0..remove).map(|number| format!("r{number}")).collect();
        house.service.patch(&cx(), COLLECTION, Patch { set, remove, ..patch("1", &[]) }).await
    };
    change(500, 524).await.unwrap();
    // What is taken away makes no document too large, and is looked for in all of its fields.
    let refused = [change(0, 1025).await, change(1025, 0).await, change(500, 525).await];
    for refused in refused {
        assert_eq!(code(refused), (ErrorKind::Invalid, "too-many-fields"));
    }
    let fields = (0..1025).map(|number| (format!("f{number}"), Value::Number(1.0))).collect();
    let results = house.service.put(&cx(), COLLECTION, vec![Put { fields, ..put("2", &[]) }]).await.unwrap();
    assert_eq!(code(results.into_iter().next().unwrap()), (ErrorKind::Invalid, "too-many-fields"));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let house = Fixture::new().await;
    for (id, title) in [("1", "apple"), ("2", "invoice"), ("3", "winter")] {
        house.put(id, title, "text").await.unwrap();
    }
    house.service.delete(&cx(), COLLECTION, "3", Expected::Any).await.unwrap();
    let house = house.reopen();
    assert_eq!(house.service.default_collection().unwrap(), COLLECTION);
    assert_eq!(house.ids("invoice text", 9).await, ["2", "1"]);
}

#[tokio::test]
async fn the_same_document_again_is_unchanged_and_costs_no_embedding() {
    let house = Fixture::new().await;
    let first = house.put("1", "apple", "pear").await.unwrap();
    let embedded = house.service.activity().embedded_texts;
    assert_eq!(embedded, 1);
    let again = house.put("1", "apple", "pear").await.unwrap();
    assert_eq!((again.outcome, again.seq), (Outcome::Unchanged, first.seq));
    // The order of fields is no part of a document.
    let turned = house.put_one(put("1", &[("content", "pear"), ("title", "apple")])).await.unwrap();
    assert_eq!((turned.outcome, turned.seq), (Outcome::Unchanged, first.seq));
    let house = house.reopen();
    assert_eq!(house.put("1", "apple", "pear").await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(house.service.activity().embedded_texts, 0);
}

#[tokio::test]
async fn a_change_beside_the_text_keeps_the_vector() {
    let house = Fixture::new().await;
    house.put("1", "apple", "pear").await.unwrap();
    let with_year = put("1", &[("title", "apple"), ("content", "pear"), ("year", "2024")]);
    assert_eq!(house.put_one(with_year).await.unwrap().outcome, Outcome::Updated);
    let tagged = house.service.patch(&cx(), COLLECTION, patch("1", &[("tags", "fruit")])).await.unwrap();
    assert_eq!(tagged.outcome, Outcome::Updated);
    assert_eq!(house.service.activity().embedded_texts, 1);
    let distance = house.distance_from(COLLECTION, "1", "apple pear").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
    assert_eq!(
        house.service.count(&cx(), COLLECTION, Some("@tags:{fruit} @year:[2024 2024]")).await.unwrap(),
        1
    );
}

#[tokio::test]
async fn a_patch_sets_removes_and_embeds_what_changed() {
    let house = Fixture::new().await;
    house.put_one(put("1", &[("title", "apple"), ("content", "pear"), ("note", "x")])).await.unwrap();
    let change = Patch { remove: vec!["note".to_owned()], ..patch("1", &[("title", "router")]) };
    let changed = house.service.patch(&cx(), COLLECTION, change.clone()).await.unwrap();
    assert_eq!(changed.outcome, Outcome::Updated);
    let document = house.get("1").await.unwrap();
    assert_eq!((field(&document, "title"), field(&document, "content")), (Some("router"), Some("pear")));
    assert_eq!(field(&document, "note"), None);
    let distance = house.distance_from(COLLECTION, "1", "router pear").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");

    let again = house.service.patch(&cx(), COLLECTION, change).await.unwrap();
    assert_eq!((again.outcome, again.seq), (Outcome::Unchanged, changed.seq));
    let missing = house.service.patch(&cx(), COLLECTION, patch("9", &[("title", "x")])).await;
    assert_eq!(code(missing), (ErrorKind::NotFound, "document-not-found"));
    let emptied = Patch { remove: vec!["title".into(), "content".into()], ..patch("1", &[]) };
    assert_eq!(
        code(house.service.patch(&cx(), COLLECTION, emptied).await),
        (ErrorKind::Invalid, "text-empty")
    );
}

#[tokio::test]
async fn guards_hold() {
    let house = Fixture::new().await;
    let guarded = |expected| Put { expected, ..put("1", &[("title", "apple")]) };
    assert_eq!(code(house.put_one(guarded(Expected::Seq(1))).await), (ErrorKind::Conflict, "conflict"));
    let made = house.put_one(guarded(Expected::Absent)).await.unwrap();
    assert_eq!(code(house.put_one(guarded(Expected::Absent)).await), (ErrorKind::Conflict, "conflict"));
    assert_eq!(
        code(house.put_one(guarded(Expected::Seq(made.seq + 1))).await),
        (ErrorKind::Conflict, "conflict")
    );
    let again = house.put_one(guarded(Expected::Seq(made.seq))).await.unwrap();
    assert_eq!(again.outcome, Outcome::Unchanged);

    let change = |expected| Patch { expected, ..patch("1", &[("title", "pear")]) };
    let stale = house.service.patch(&cx(), COLLECTION, change(Expected::Seq(made.seq + 1))).await;
    assert_eq!(code(stale), (ErrorKind::Conflict, "conflict"));
    let changed = house.service.patch(&cx(), COLLECTION, change(Expected::Seq(made.seq))).await.unwrap();
    let stale = house.service.delete(&cx(), COLLECTION, "1", Expected::Seq(made.seq)).await.unwrap_err();
    assert_eq!(stale.kind, ErrorKind::Conflict);
    assert!(house.service.delete(&cx(), COLLECTION, "1", Expected::Seq(changed.seq)).await.unwrap());
}

#[tokio::test]
async fn results_come_in_order_each_with_its_own_fate() {
    let house = Fixture::new().await;
    let number = |value: f64| ("year".to_owned(), Value::Number(value));
    let with = |id: &str, extra: (String, Value)| {
        let mut one = put(id, &[("title", "plum")]);
        one.fields.push(extra);
        one
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
    let results = house.service.put(&cx(), COLLECTION, puts).await.unwrap();
    let fates: Vec<&str> = results
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
    assert_eq!(fates, expected);
    for result in results.into_iter().filter_map(Result::err) {
        assert_eq!(result.kind, ErrorKind::Invalid, "{result}");
        assert!(result.at.is_some(), "{result}");
    }
    assert_eq!(house.service.count(&cx(), COLLECTION, None).await.unwrap(), 3);
}

#[tokio::test]
async fn an_id_given_twice_in_a_call_ends_as_the_later_says() {
    let house = Fixture::new().await;
    let puts = vec![
        put("1", &[("title", "apple")]),
        put("2", &[("title", "plum")]),
        put("1", &[("title", "router")]),
        put("1", &[("title", "router")]),
    ];
    let results = house.service.put(&cx(), COLLECTION, puts).await.unwrap();
    let outcomes: Vec<Outcome> = results.iter().map(|result| result.as_ref().unwrap().outcome).collect();
    assert_eq!(outcomes, [Outcome::Created, Outcome::Created, Outcome::Updated, Outcome::Unchanged]);
    assert_eq!(field(&house.get("1").await.unwrap(), "title"), Some("router"));
    let distance = house.distance_from(COLLECTION, "1", "router").await.unwrap();
    assert!(distance.abs() < 1e-5, "{distance}");
}

#[tokio::test]
async fn values_take_the_form_the_schema_gives_them() {
    let house = Fixture::new().await;
    let own: Vec<f32> = (0..16).map(|n| n as f32 - 4.5).collect();
    let fields: Fields = vec![
        ("title".into(), text("apple")),
        ("tags".into(), Value::Tags(vec!["Red".into(), "sweet".into()])),
        ("year".into(), Value::Number(2024.5)),
        ("embedding".into(), Value::Vector(own.clone())),
        ("anything".into(), Value::Bytes(vec![0, 255])),
    ];
    house.put_one(Put { fields, ..put("1", &[]) }).await.unwrap();
    let document = house.get("1").await.unwrap();
    assert_eq!(document.field(b"tags"), Some(&b"Red,sweet"[..]));
    assert_eq!(document.field(b"year"), Some(&b"2024.5"[..]));
    assert_eq!(document.field(b"anything"), Some(&[0, 255][..]));
    let blob: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(document.field(b"embedding"), Some(blob.as_slice()));
    // A document with a vector of its own is not embedded.
    assert_eq!(house.service.activity().embedded_texts, 0);
    assert_eq!(
        house.service.count(&cx(), COLLECTION, Some("@tags:{red} @year:[2024 2025]")).await.unwrap(),
        1
    );
}

#[tokio::test]
async fn a_text_longer_than_the_model_reads_is_reported() {
    let house = Fixture::new().await;
    let long = "apple ".repeat(40);
    assert!(house.put("1", &long, "").await.unwrap().truncated);
    assert!(!house.put("2", "apple", "").await.unwrap().truncated);
    assert!(house.search(&long, 1).await.truncated);
    assert!(!house.search("apple", 1).await.truncated);
}

#[tokio::test]
async fn documents_end_when_their_life_is_over() {
    let house = Fixture::new().await;
    let mortal = |seconds| Put { ttl: Some(Duration::from_secs(seconds)), ..put("1", &[("title", "apple")]) };
    house.put_one(mortal(10)).await.unwrap();
    house.put("2", "apple", "").await.unwrap();
    let first_end = house.get("1").await.unwrap().expires_at_ms.unwrap();
    house.clock.advance(Duration::from_secs(6));
    // The same again lives on from now, and is not embedded again.
    let embedded = house.service.activity().embedded_texts;
    assert_eq!(house.put_one(mortal(10)).await.unwrap().outcome, Outcome::Updated);
    assert_eq!(house.get("1").await.unwrap().expires_at_ms, Some(first_end + 6000));
    assert_eq!(house.service.activity().embedded_texts, embedded);
    house.clock.advance(Duration::from_secs(6));
    assert_eq!(house.ids("apple", 9).await.len(), 2);
    house.clock.advance(Duration::from_secs(6));
    assert_eq!(house.get("1").await.unwrap_err().code, "document-not-found");
    assert_eq!(house.ids("apple", 9).await, ["2"]);
    assert_eq!(house.service.count(&cx(), COLLECTION, None).await.unwrap(), 1);

    // A patch may give, keep and take an end.
    let ttl = |ttl| Patch { ttl, ..patch("2", &[]) };
    let patched = async |change| house.service.patch(&cx(), COLLECTION, change).await;
    assert_eq!(patched(ttl(Some(Some(Duration::from_secs(5))))).await.unwrap().outcome, Outcome::Updated);
    let end = house.get("2").await.unwrap().expires_at_ms;
    assert!(end.is_some());
    patched(patch("2", &[("title", "pear")])).await.unwrap();
    assert_eq!(house.get("2").await.unwrap().expires_at_ms, end);
    assert_eq!(patched(ttl(None)).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(patched(ttl(Some(None))).await.unwrap().outcome, Outcome::Updated);
    assert_eq!(house.get("2").await.unwrap().expires_at_ms, None);
    assert_eq!(patched(ttl(Some(None))).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(code(patched(ttl(Some(Some(Duration::ZERO)))).await), (ErrorKind::Invalid, "ttl"));
}

#[tokio::test]
async fn a_collection_gives_documents_its_own_life() {
    let house = Fixture::empty();
    let schema = service::Schema { ttl: Some(Duration::from_secs(60)), ..fixture::article("a:") };
    house.make(COLLECTION, schema).await;
    house.put("1", "apple", "").await.unwrap();
    let end = house.get("1").await.unwrap().expires_at_ms.unwrap();
    house.clock.advance(Duration::from_secs(20));
    assert_eq!(house.put("1", "apple", "").await.unwrap().outcome, Outcome::Updated);
    assert_eq!(house.get("1").await.unwrap().expires_at_ms, Some(end + 20_000));
    assert_eq!(house.service.activity().embedded_texts, 1);
    house.clock.advance(Duration::from_secs(61));
    assert_eq!(house.get("1").await.unwrap_err().code, "document-not-found");
}

#[tokio::test]
async fn documents_are_scrolled_counted_and_deleted_by_filter() {
    let house = Fixture::new().await;
    let puts = (0..2500)
        .map(|number| {
            let parity = ["even", "odd"][number % 2];
            Put {
                fields: text_fields(&[("title", "apple"), ("tags", parity)]),
                ..put(&number.to_string(), &[])
            }
        })
        .collect();
    let results = house.service.put(&cx(), COLLECTION, puts).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    // One text, however many documents have it.
    assert_eq!(house.service.activity().embedded_texts, 1);

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = house
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

    let count = async |filter| house.service.count(&cx(), COLLECTION, filter).await;
    assert_eq!(count(None).await.unwrap(), 2500);
    assert_eq!(count(Some("-@tags:{odd}")).await.unwrap(), 1250);
    assert_eq!(house.service.delete_matching(&cx(), COLLECTION, "@tags:{odd}").await.unwrap(), 1250);
    assert_eq!(house.service.delete_matching(&cx(), COLLECTION, "@tags:{odd}").await.unwrap(), 0);
    assert_eq!(count(None).await.unwrap(), 1250);
    assert_eq!(house.service.delete_matching(&cx(), COLLECTION, "*").await.unwrap(), 1250);
    assert_eq!(count(None).await.unwrap(), 0);

    for filter in ["@tags:{", "@nowhere:{x}"] {
        let error = count(Some(filter)).await.unwrap_err();
        assert_eq!((error.kind, error.at.as_deref()), (ErrorKind::Invalid, Some("filter")), "{error}");
    }
    for limit in [0, 1001] {
        let error = house.service.scroll(&cx(), COLLECTION, None, None, limit).await.unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Invalid, "limit"));
    }
}

#[tokio::test]
async fn an_id_is_found_under_every_prefix_of_its_collection() {
    let house = Fixture::empty();
    house.make("new", fixture::article("new:")).await;
    let mut both = fixture::article("old:");
    both.prefixes.push(b"new:".to_vec());
    house.make(COLLECTION, both).await;
    house.service.put(&cx(), "new", vec![put("1", &[("title", "apple")])]).await.unwrap();
    let document = house.get("1").await.unwrap();
    assert_eq!(&*document.key, b"new:1");
    assert_eq!(house.ids("apple", 9).await, ["1"]);
    // What stands is changed where it stands; what is new goes under the first prefix.
    house.service.patch(&cx(), COLLECTION, patch("1", &[("title", "pear")])).await.unwrap();
    assert_eq!(house.put("2", "plum", "").await.unwrap().outcome, Outcome::Created);
    assert_eq!(&*house.get("2").await.unwrap().key, b"old:2");
    assert!(house.service.delete(&cx(), COLLECTION, "1", Expected::Any).await.unwrap());
    assert_eq!(house.service.get(&cx(), "new", "1").await.unwrap_err().code, "document-not-found");
}

#[tokio::test]
async fn who_has_read_a_backup_may_ask_for_the_next_at_once() {
    let house = Fixture::new().await;
    for _ in 0..200 {
        let mut backup = house.service.back_up(&cx()).await.unwrap();
        let mut bytes = 0;
        while let Some(piece) = backup.next().await {
            bytes += piece.unwrap().len();
        }
        assert_ne!(bytes, 0);
    }
}
