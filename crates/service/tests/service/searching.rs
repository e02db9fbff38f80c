//! Searches by text, vector or blob, single or in batches.

use std::time::{Duration, Instant};

use service::{Context, ErrorKind, Leg, Paging, SearchRequest};
use tokio_util::sync::CancellationToken;

use crate::fixture::{self, COLLECTION, Fixture, cx, embed, ids, put};

async fn with_articles() -> Fixture {
    let fixture = Fixture::new().await;
    let titles = ["apple pear", "apple plum", "invoice refund", "router cable", "winter summer"];
    let puts = (1..).zip(titles).map(|(number, title)| {
        put(&format!("{number}"), &[("title", title), ("tags", if number < 3 { "fruit" } else { "other" })])
    });
    let results = fixture.service.put(&cx(), COLLECTION, puts.collect()).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    fixture
}

#[tokio::test]
async fn equivalent_text_vector_and_blob_queries_return_the_same_hits() {
    let fixture = with_articles().await;
    let vector = embed(&fixture.model_dir(), "apple pear");
    let blob = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    let by_text = fixture.search("apple pear", 5).await;
    assert_eq!(ids(&by_text)[..2], ["1", "2"]);
    assert!(by_text.hits[0].distance.unwrap().abs() < 1e-5);
    assert_eq!(by_text.hits[0].passage, Some(0));
    for leg in [Leg::Vector(vector), Leg::Blob(blob)] {
        for exact in [false, true] {
            let search = SearchRequest { legs: vec![leg.clone()], exact, ..SearchRequest::text("", 5) };
            let response = fixture.service.search(&cx(), search).await.unwrap();
            assert_eq!(ids(&response), ids(&by_text));
            for (one, other) in response.hits.iter().zip(&by_text.hits) {
                assert!((one.score - other.score).abs() < 1e-5);
                assert!((one.score - (1.0 - one.distance.unwrap())).abs() < 1e-6);
            }
        }
    }
    // Apart from the five documents, only the query text was embedded.
    assert_eq!(fixture.service.activity().embedded_texts, 6);
}

#[tokio::test]
async fn a_response_respects_the_requested_page_filter_and_fields() {
    let fixture = with_articles().await;
    let all = fixture.ids("apple", 5).await;
    let page = SearchRequest { paging: Paging { offset: 2, k: 2 }, ..SearchRequest::text("apple", 5) };
    assert_eq!(ids(&fixture.service.search(&cx(), page).await.unwrap()), all[2..4]);

    let filtered = SearchRequest { filter: Some("@tags:{other}".into()), ..SearchRequest::text("apple", 5) };
    let mut found = ids(&fixture.service.search(&cx(), filtered).await.unwrap());
    found.sort();
    assert_eq!(found, ["3", "4", "5"]);

    let min_score = SearchRequest { min_score: Some(0.999), ..SearchRequest::text("router cable", 5) };
    assert_eq!(ids(&fixture.service.search(&cx(), min_score).await.unwrap()), ["4"]);

    let fields = SearchRequest { fields: Some(vec!["title".into()]), ..SearchRequest::text("router", 1) };
    let response = fixture.service.search(&cx(), fields).await.unwrap();
    assert_eq!(response.collection, COLLECTION);
    assert_eq!(response.hits[0].document.fields.len(), 1);
    assert_eq!(fixture::field(&response.hits[0].document, "title"), Some("router cable"));
}

#[tokio::test]
async fn rejects_invalid_searches_and_names_the_field() {
    let fixture = with_articles().await;
    let base = || SearchRequest::text("apple", 5);
    let page = |offset, k| SearchRequest { paging: Paging { offset, k }, ..base() };
    let legs = |legs| SearchRequest { legs, ..base() };
    let vector = |vector| legs(vec![Leg::Vector(vector)]);
    let cases = [
        (page(0, 0), "k", Some("k")),
        (page(0, 1001), "k", Some("k")),
        (page(9_996, 5), "offset", Some("offset")),
        (page(usize::MAX, 5), "offset", Some("offset")),
        (SearchRequest { ef_search: Some(0), ..base() }, "ef-search", Some("ef_search")),
        (SearchRequest { ef_search: Some(4097), ..base() }, "ef-search", Some("ef_search")),
        (SearchRequest { min_score: Some(f32::NAN), ..base() }, "min-score", Some("min_score")),
        (SearchRequest { field: Some("title".into()), ..base() }, "field-not-found", Some("field")),
        (SearchRequest { filter: Some("@tags:{".into()), ..base() }, "filter", Some("filter")),
        (SearchRequest { filter: Some("@title:{x}".into()), ..base() }, "filter", Some("filter")),
        (
            SearchRequest { fields: Some(vec!["nowhere".into()]), ..base() },
            "field-not-found",
            Some("nowhere"),
        ),
        (legs(vec![]), "legs", None),
        (legs(vec![Leg::Text("a".into()), Leg::Text("b".into())]), "legs", None),
        (SearchRequest::text("", 5), "text-empty", Some("text")),
        (SearchRequest::text(" \n\t", 5), "text-empty", Some("text")),
        (SearchRequest::text("x".repeat(70_000), 5), "text-too-long", Some("text")),
        (vector(vec![1.0; 15]), "vector-dimensions", Some("embedding")),
        (vector(vec![]), "vector-dimensions", Some("embedding")),
        (vector(vec![0.0; 16]), "vector-value", Some("embedding")),
        (vector(vec![f32::NAN; 16]), "vector-value", Some("embedding")),
        (legs(vec![Leg::Blob(vec![0; 63])]), "vector-dimensions", Some("embedding")),
    ];
    for (search, code, at) in cases {
        let error = fixture.service.search(&cx(), search.clone()).await.expect_err(&format!("{search:?}"));
        assert_eq!((error.kind, error.code, error.at.as_deref()), (ErrorKind::Invalid, code, at), "{error}");
    }
    let short = fixture.service.search(&cx(), vector(vec![1.0; 15])).await.unwrap_err();
    assert!(short.message.contains("vector dimensions do not match"), "{short}");
}

#[tokio::test]
async fn a_field_without_a_model_accepts_only_vectors() {
    let fixture = Fixture::empty();
    let mut schema = fixture::article("a:");
    for field in &mut schema.fields {
        if let service::FieldKind::Vector(vector) = &mut field.kind {
            vector.embed = None;
        }
    }
    fixture.create(COLLECTION, schema).await;
    fixture.put("1", "apple", "").await.unwrap();
    let error = fixture.service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Invalid, "field-not-embedded"));
}

#[tokio::test]
async fn a_batch_of_searches_returns_one_result_per_search_in_order() {
    let fixture = with_articles().await;
    let searches = vec![
        SearchRequest::text("router cable", 1),
        SearchRequest::text("", 1),
        SearchRequest::text("invoice refund", 1),
        SearchRequest { collection: Some("nowhere".into()), ..SearchRequest::text("apple", 1) },
        SearchRequest { filter: Some("@nowhere:{x}".into()), ..SearchRequest::text("apple", 1) },
        SearchRequest::text("winter summer", 1),
    ];
    let responses = fixture.service.search_many(&cx(), searches).await.unwrap();
    let outcomes: Vec<&str> = responses
        .iter()
        .map(|response| match response {
            Ok(response) => response.hits[0].id.as_str(),
            Err(error) => error.code,
        })
        .collect();
    assert_eq!(outcomes, ["4", "text-empty", "3", "collection-not-found", "filter", "5"]);
    let many = vec![SearchRequest::text("apple", 1); 101];
    assert_eq!(fixture.service.search_many(&cx(), many).await.unwrap_err().code, "too-many-searches");
    assert!(fixture.service.search_many(&cx(), vec![]).await.unwrap().is_empty());
    let fields = Some(vec!["title".to_owned(); 1025]);
    let error =
        fixture.service.search(&cx(), SearchRequest { fields, ..SearchRequest::text("apple", 1) }).await;
    assert_eq!(error.unwrap_err().code, "too-many-fields");
}

#[tokio::test]
async fn stage_times_add_up_to_at_most_the_total_time() {
    let fixture = with_articles().await;
    let search = SearchRequest { filter: Some("@tags:{fruit}".into()), ..SearchRequest::text("apple", 5) };
    let before = Instant::now();
    let timing = fixture.service.search(&cx(), search).await.unwrap().timing;
    let took = u64::try_from(before.elapsed().as_micros()).unwrap();
    let stages = timing.queue_us + timing.embed_us + timing.filter_us + timing.search_us + timing.fetch_us;
    assert!(stages <= timing.total_us && timing.total_us <= took, "{timing:?} of {took}");
    assert!(timing.embed_us > 0, "{timing:?}");
}

#[tokio::test]
async fn rejects_expired_and_cancelled_calls() {
    let fixture = with_articles().await;
    let embedded = fixture.service.activity().embedded_texts;
    let expired = Context { deadline: Some(Instant::now()), ..cx() };
    let error = fixture.service.search(&expired, SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "deadline"));
    let cancel = CancellationToken::new();
    cancel.cancel();
    let cancelled = Context { cancel, deadline: Some(Instant::now() + Duration::from_secs(600)), ..cx() };
    let error = fixture.service.search(&cancelled, SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "cancelled"));
    let error =
        fixture.service.put(&cancelled, COLLECTION, vec![put("9", &[("title", "fig")])]).await.unwrap_err();
    assert_eq!(error.code, "cancelled");
    assert_eq!(fixture.service.activity().embedded_texts, embedded);
    assert_eq!(fixture.get("9").await.unwrap_err().code, "document-not-found");
}

#[tokio::test]
async fn a_closed_service_returns_an_error() {
    let fixture = with_articles().await;
    fixture.service.close();
    fixture.service.close();
    let error = fixture.service.search(&cx(), SearchRequest::text("apple", 1)).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "closing"));
    let put = fixture.service.put(&cx(), COLLECTION, vec![put("9", &[("title", "fig")])]).await.unwrap_err();
    assert_eq!((put.kind, put.code), (ErrorKind::Unavailable, "closing"));
}
