//! Concurrent calls.

use service::{Embedding, ErrorKind, Expected, FieldKind, Outcome, Patch, Put, Schema, SearchRequest};
use testing::tiny_model;

use crate::fixture::{self, COLLECTION, Fixture, cx, field, ids, patch, put};

const WORDS: [&str; 40] = tiny_model::WORDS;

/// Asserts that the vector of a document matches its current text.
async fn assert_vector_matches_text(fixture: &Fixture, id: &str) {
    let document = fixture.get(id).await.unwrap();
    let text = ["title", "content"].map(|name| field(&document, name).unwrap_or_default());
    let distance = fixture.distance_from(COLLECTION, id, text.join(" ").trim()).await.unwrap();
    assert!(distance.abs() < 1e-5, "{id} {text:?}: {distance}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_patches_never_leave_a_stale_vector() {
    let fixture = Fixture::new().await;
    for round in 0..30 {
        let id = format!("{round}");
        fixture.put(&id, "apple", "pear").await.unwrap();
        let mut tasks = Vec::new();
        for (name, step) in [("title", 1), ("content", 3), ("title", 7), ("content", 11)] {
            let (service, id) = (fixture.service.clone(), id.clone());
            tasks.push(tokio::spawn(async move {
                for turn in 0..5 {
                    let word = WORDS[(round + step * (turn + 1)) % WORDS.len()];
                    service.patch(&cx(), COLLECTION, patch(&id, &[(name, word)])).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        // Each field holds the last patch of its writer; no patch was lost.
        let document = fixture.get(&id).await.unwrap();
        let last = |step: usize| WORDS[(round + step * 5) % WORDS.len()];
        assert!([last(1), last(7)].contains(&field(&document, "title").unwrap()));
        assert!([last(3), last(11)].contains(&field(&document, "content").unwrap()));
        assert_vector_matches_text(&fixture, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_patches_of_different_fields_are_all_kept() {
    let fixture = Fixture::new().await;
    fixture.put("1", "apple", "").await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let service = fixture.service.clone();
            tokio::spawn(async move {
                let (name, word) = (format!("field{number}"), WORDS[number]);
                service.patch(&cx(), COLLECTION, patch("1", &[(&name, word)])).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let document = fixture.get("1").await.unwrap();
    for (number, word) in WORDS.iter().enumerate().take(8) {
        assert_eq!(field(&document, &format!("field{number}")), Some(*word));
    }
    assert_vector_matches_text(&fixture, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_batches_and_patches_keep_text_and_vector_consistent() {
    let fixture = Fixture::new().await;
    fixture.put("1", "apple", "pear").await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..6 {
        let service = fixture.service.clone();
        tasks.push(tokio::spawn(async move {
            let mut written = 0;
            for turn in 0..20 {
                let word = WORDS[(task * 5 + turn) % WORDS.len()];
                let results = if task % 2 == 0 {
                    // Half of these restore an earlier text, whose vector may be reused.
                    let year = format!("{turn}");
                    let title = if turn % 2 == 0 { "apple" } else { word };
                    let fields = [("title", title), ("content", "pear"), ("year", &year)];
                    service.put(&cx(), COLLECTION, vec![put("1", &fields), put("2", &fields)]).await.unwrap()
                } else {
                    vec![service.patch(&cx(), COLLECTION, patch("1", &[("title", word)])).await]
                };
                for result in results {
                    match result {
                        Ok(_) => written += 1,
                        Err(error) => {
                            assert_eq!((error.kind, error.code), (ErrorKind::Conflict, "contended"))
                        }
                    }
                }
            }
            written
        }));
    }
    for task in tasks {
        assert!(task.await.unwrap() > 0);
    }
    assert_vector_matches_text(&fixture, "1").await;
    assert_vector_matches_text(&fixture, "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_several_writers_with_the_same_precondition_succeeds() {
    let fixture = Fixture::new().await;
    let created = fixture.put("1", "apple", "").await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let service = fixture.service.clone();
            let patch = Patch {
                expected: Expected::Seq(created.seq),
                ..patch("1", &[("title", WORDS[10 + number])])
            };
            tokio::spawn(async move { service.patch(&cx(), COLLECTION, patch).await })
        })
        .collect();
    let mut succeeded = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(result) => {
                assert_eq!(result.outcome, Outcome::Updated);
                succeeded += 1;
            }
            Err(error) => assert_eq!((error.kind, error.code), (ErrorKind::Conflict, "conflict")),
        }
    }
    assert_eq!(succeeded, 1);

    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let service = fixture.service.clone();
            let absent = Put { expected: Expected::Absent, ..put("2", &[("title", "plum")]) };
            tokio::spawn(
                async move { service.put(&cx(), COLLECTION, vec![absent]).await.unwrap().pop().unwrap() },
            )
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        created += usize::from(task.await.unwrap().is_ok());
    }
    assert_eq!(created, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn searches_succeed_during_a_bulk_load() {
    let fixture = Fixture::new().await;
    fixture.put("first", "winter summer", "").await.unwrap();
    let service = fixture.service.clone();
    let load = tokio::spawn(async move {
        for batch in 0..10 {
            let puts = (0..200).map(|number| {
                let content = format!("{} {batch} {number}", WORDS[number % 30]);
                put(
                    &format!("{batch}-{number}"),
                    &[("title", WORDS[(batch + number) % 30]), ("content", &content)],
                )
            });
            let results = service.put(&cx(), COLLECTION, puts.collect()).await.unwrap();
            assert!(results.iter().all(Result::is_ok));
        }
    });
    let mut searches = 0;
    while !load.is_finished() || searches == 0 {
        let response = fixture.service.search(&cx(), SearchRequest::text("winter summer", 1)).await.unwrap();
        assert_eq!(ids(&response), ["first"]);
        searches += 1;
    }
    load.await.unwrap();
    assert_eq!(fixture.service.count(&cx(), COLLECTION, None).await.unwrap(), 2001);
    let fixture = fixture.reopen();
    assert_eq!(fixture.service.count(&cx(), COLLECTION, None).await.unwrap(), 2001);
    assert_eq!(fixture.ids("winter summer", 1).await, ["first"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn documents_written_while_a_collection_is_rebuilt_are_in_the_new_version() {
    let fixture = Fixture::new().await;
    let puts = (0..300)
        .map(|number| put(&number.to_string(), &[("title", WORDS[number % 40]), ("content", "pear")]));
    fixture.service.put(&cx(), COLLECTION, puts.collect()).await.unwrap();
    let schema = with_embedding(|embed| embed.fields = vec!["title".into()]);
    let service = fixture.service.clone();
    let writer = tokio::spawn(async move {
        for number in 0..150 {
            let word = WORDS[(number * 3 + 1) % 40];
            service.patch(&cx(), COLLECTION, patch(&number.to_string(), &[("title", word)])).await.unwrap();
        }
    });
    fixture.service.put_collection(&cx(), COLLECTION, schema, true).await.unwrap();
    writer.await.unwrap();
    fixture.wait_until_settled().await;
    for number in 0..300 {
        let word = WORDS[if number < 150 { (number * 3 + 1) % 40 } else { number % 40 }];
        let distance = fixture.distance_from(COLLECTION, &number.to_string(), word).await.unwrap();
        assert!(distance.abs() < 1e-5, "{number}: {distance}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn queries_are_embedded_with_the_model_of_the_searched_version_during_a_model_change() {
    let fixture = Fixture::new().await;
    tiny_model::write(&fixture.config.models_dir.join("other"), 2);
    let puts = (0..200)
        .map(|number| put(&number.to_string(), &[("title", WORDS[number % 40]), ("content", "pear")]));
    fixture.service.put(&cx(), COLLECTION, puts.collect()).await.unwrap();
    for model in ["other", fixture::MODEL, "other"] {
        let schema = with_embedding(|embed| embed.model = model.to_owned());
        let before = fixture.service.collection(&cx(), COLLECTION).await.unwrap().version;
        fixture.service.put_collection(&cx(), COLLECTION, schema, true).await.unwrap();
        let mut remaining = 20;
        while remaining > 0 {
            let word = WORDS[remaining % 40];
            let response = fixture.search(&format!("{word} pear"), 1).await;
            assert!(response.hits[0].distance.unwrap().abs() < 1e-5, "{word}: {:?}", response.hits[0]);
            let version = fixture.service.collection(&cx(), COLLECTION).await.unwrap().version;
            remaining -= usize::from(version != before);
        }
    }
}

/// The articles schema with a changed embedding.
fn with_embedding(change: impl Fn(&mut Embedding)) -> Schema {
    let mut schema = fixture::article("a:");
    for field in &mut schema.fields {
        if let FieldKind::Vector(vector) = &mut field.kind {
            change(vector.embed.as_mut().unwrap());
        }
    }
    schema
}
