//! Creating, rebuilding, switching, aliasing and dropping collections.

use engine::{
    CollectionError, ComputedVector, DropMode, Engine, Expected, Metric, Op, Query, Schema, WriteError,
};

use crate::test_engine::*;

/// Computes all missing vectors, as the service does in the background. Returns their number.
fn embed_missing(engine: &Engine, collection: &str) -> usize {
    let mut embedded = 0;
    loop {
        let missing = engine.unembedded(collection, 3).unwrap();
        assert!(missing.len() <= 3);
        if missing.is_empty() {
            return embedded;
        }
        embedded += missing.len();
        let ops = missing
            .into_iter()
            .map(|(document, texts)| Op::SetVectors {
                key: document.key.into(),
                expected: document.seq,
                vectors: texts.iter().map(embed).collect(),
            })
            .collect();
        assert!(engine.write(ops).iter().all(Result::is_ok));
    }
}

/// The vector that a model would compute for a text.
fn vector_of_text(text: &str) -> Vec<f32> {
    let version = engine::CollectionVersion { id: 0, version: 0 };
    let text = engine::TextToEmbed {
        collection: version,
        field: 0,
        passage: 0,
        model: String::new(),
        text: text.to_owned(),
    };
    let ComputedVector { values, .. } = embed(&text);
    values
}

#[test]
fn a_new_collection_indexes_existing_documents() {
    let mut test = TestEngine::new();
    for number in 0..700u64 {
        test.engine()
            .submit(
                vec![put(&format!("doc:{number}"), &[("year", b"1"), ("v", &blob(&vector(number)))])],
                Box::new(|results| assert!(results[0].is_ok())),
            )
            .unwrap();
    }
    test.put("doc:bad vector", &[("v", b"123")]);
    test.put("doc:bad year", &[("year", b"soon")]);
    test.put("elsewhere", &[("v", &blob(&vector(1)))]);
    let info = test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    assert_eq!((info.documents, info.vectors, info.failures), (700, 700, 2));
    assert_eq!(
        info.last_failure.as_deref(),
        Some("document \"doc:bad year\", field \"year\": expected a finite number, found \"soon\"")
    );
    for reopened in 0..2 {
        for number in [0, 255, 256, 699] {
            let vector = vector(number);
            assert_eq!(test.keys(&query("docs", &vector, 1)), [format!("doc:{number}")]);
        }
        assert_eq!(test.engine().collection("docs").unwrap().failures, 2, "reopened {reopened} times");
        test.reopen();
    }
    test.put("doc:bad year", &[("year", b"2020")]);
    test.delete("doc:bad vector");
    let info = test.engine().collection("docs").unwrap();
    assert_eq!((info.documents, info.failures, info.last_failure), (701, 0, None));
}

#[test]
fn reports_texts_to_embed_and_requires_their_vectors() {
    let test = TestEngine::new();
    test.engine().create_collection("docs", embedding_schema("doc:")).unwrap();
    let values: &[(&str, &[u8])] = &[("content", b"reset it"), ("title", b"Password"), ("other", b"x")];
    let texts = test.engine().texts_to_embed(b"doc:1", &fields(values));
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0].text, "Password reset it");
    assert_eq!((texts[0].field, texts[0].model.as_str()), (4, "toy"));
    assert_eq!(test.engine().texts_to_embed(b"elsewhere", &fields(values)), []);
    assert_eq!(test.engine().texts_to_embed(b"doc:1", &fields(&[("title", b"  "), ("content", b"")])), []);

    let bare = put("doc:1", values);
    assert!(matches!(test.engine().validate(&bare), Err(WriteError::VectorsMissing { .. })));
    assert!(matches!(test.write(bare), Err(WriteError::VectorsMissing { .. })));
    test.write(embedded_put(test.engine(), "doc:1", values)).unwrap();
    assert_eq!(test.keys(&query("docs", &vector_of_text("Password reset it"), 1)), ["doc:1"]);
    let stored = test.engine().vectors("docs", b"doc:1").unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].0.as_str(), stored[0].1.model), ("v", [9; 16]));
    assert_eq!(stored[0].1.values, vector_of_text("Password reset it"));

    // A vector in the document needs no computed one and replaces it.
    let given = blob(&vector(5));
    let with_vector: &[(&str, &[u8])] = &[("title", b"Password"), ("v", &given)];
    assert_eq!(test.engine().texts_to_embed(b"doc:1", &fields(with_vector)), []);
    test.put("doc:1", with_vector);
    assert_eq!(test.engine().vectors("docs", b"doc:1").unwrap(), []);
    let hit = test.engine().search(&query("docs", &vector(5), 1)).unwrap().hits.remove(0);
    assert!(hit.distance.unwrap().abs() < 1e-6);

    // A vector that is not needed, is given twice, or has the wrong dimension.
    let vectors_for = |values: &[(&str, &[u8])], vectors: Vec<ComputedVector>| {
        let Op::Put { key, fields, expires_at_ms, expected, .. } = put("doc:1", values) else {
            unreachable!()
        };
        test.write(Op::Put { key, fields, expires_at_ms, expected, vectors }).unwrap_err()
    };
    let computed = embed(&texts[0]);
    let error = vectors_for(with_vector, vec![computed.clone()]);
    assert!(matches!(error, WriteError::Invalid { ref field, .. } if field == "v"), "{error}");
    let error = vectors_for(values, vec![computed.clone(), computed.clone()]);
    assert!(matches!(error, WriteError::Invalid { .. }), "{error}");
    let error = vectors_for(values, vec![ComputedVector { values: vec![1.0; 3], ..computed }]);
    assert!(error.to_string().contains("vector dimensions do not match: expected 8, found 3"), "{error}");
    let error = vectors_for(&[("title", b"\xff")], vec![]);
    assert!(error.to_string().contains("text to embed is not UTF-8"), "{error}");
}

#[test]
fn existing_documents_are_embedded_later() {
    let mut test = TestEngine::new();
    for number in 0..10 {
        test.put(&format!("doc:{number}"), &[("title", format!("t{number}").as_bytes())]);
    }
    test.put("doc:no text", &[("year", b"1")]);
    let info = test.engine().create_collection("docs", embedding_schema("doc:")).unwrap();
    assert_eq!((info.documents, info.vectors, info.unembedded), (11, 0, 10));
    test.delete("doc:0");
    test.write(embedded_put(test.engine(), "doc:1", &[("title", b"new")])).unwrap();
    assert_eq!(test.engine().collection("docs").unwrap().unembedded, 8);
    test.reopen();
    assert_eq!(test.engine().collection("docs").unwrap().unembedded, 8);

    // A vector computed from an older text is rejected.
    let (document, texts) = test.engine().unembedded("docs", 1).unwrap().remove(0);
    let late = Op::SetVectors {
        key: document.key.to_vec(),
        expected: document.seq,
        vectors: texts.iter().map(embed).collect(),
    };
    test.write(embedded_put(test.engine(), &text(&document.key), &[("title", b"newer")])).unwrap();
    assert!(matches!(test.write(late), Err(WriteError::Conflict { .. })));

    assert_eq!(embed_missing(test.engine(), "docs"), 7);
    for _ in 0..2 {
        let info = test.engine().collection("docs").unwrap();
        assert_eq!((info.vectors, info.unembedded), (9, 0));
        assert_eq!(test.keys(&query("docs", &vector_of_text("newer"), 1)), [text(&document.key)]);
        assert_eq!(test.keys(&query("docs", &vector_of_text("t9"), 1)), ["doc:9"]);
        test.crash();
    }
}

#[test]
fn creating_a_collection_again_requires_an_equal_schema() {
    let test = TestEngine::new();
    let created = test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    let existing = test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    assert_eq!(created.version, existing.version);
    let error = test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::Ip)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "collection \"docs\" exists with another schema: field \"v\" differs; rebuild it or \
         drop it first"
    );
    for name in ["", "a b", "a/b", "../x", ".", "..", "...", "\u{e4}", &"x".repeat(129)] {
        let error = test.engine().create_collection(name, schema("doc:", hnsw(), Metric::Ip)).unwrap_err();
        assert!(matches!(error, CollectionError::Name { .. }), "{error}");
    }
    let mut bad = schema("doc:", hnsw(), Metric::Ip);
    bad.fields.clear();
    assert!(matches!(test.engine().create_collection("bad", bad), Err(CollectionError::Schema(_))));
}

#[test]
fn aliases_resolve_to_collections() {
    let mut test = TestEngine::new();
    test.engine().create_collection("one", schema("1:", hnsw(), Metric::L2)).unwrap();
    test.engine().create_collection("two", schema("2:", hnsw(), Metric::L2)).unwrap();
    test.put("1:a", &[("v", &blob(&vector(1)))]);
    test.put("2:a", &[("v", &blob(&vector(1)))]);
    let found = |test: &TestEngine| test.keys(&query("now", &vector(1), 9));
    test.engine().set_alias("now", "one").unwrap();
    assert_eq!(found(&test), ["1:a"]);
    test.engine().set_alias("now", "two").unwrap();
    test.reopen();
    assert_eq!(found(&test), ["2:a"]);
    assert_eq!(test.engine().collection("now").unwrap().name, "two");
    assert_eq!(test.engine().collection("two").unwrap().aliases, ["now"]);

    assert!(matches!(test.engine().set_alias("one", "two"), Err(CollectionError::NameTaken { .. })));
    assert!(matches!(test.engine().set_alias("x", "none"), Err(CollectionError::NotFound { .. })));
    assert!(matches!(test.engine().set_alias("x", "now"), Err(CollectionError::IsAlias { .. })));
    let schema = schema("1:", hnsw(), Metric::L2);
    assert!(matches!(test.engine().create_collection("now", schema), Err(CollectionError::IsAlias { .. })));
    let dropped = test.engine().drop_collection("now", DropMode::KeepDocuments);
    assert!(matches!(dropped, Err(CollectionError::IsAlias { .. })));

    test.engine().drop_collection("two", DropMode::KeepDocuments).unwrap();
    assert!(test.engine().search(&query("now", &vector(1), 1)).is_err());
    test.engine().set_alias("now", "one").unwrap();
    test.engine().remove_alias("now").unwrap();
    assert!(matches!(test.engine().remove_alias("now"), Err(CollectionError::NotFound { .. })));
    assert!(matches!(test.engine().remove_alias("one"), Err(CollectionError::NotFound { .. })));
}

#[test]
fn dropping_a_collection_keeps_or_deletes_its_documents() {
    let mut test = TestEngine::new();
    test.engine().create_collection("all", schema("", hnsw(), Metric::L2)).unwrap();
    for (prefix, documents) in [("keep:", DropMode::KeepDocuments), ("take:", DropMode::DeleteDocuments)] {
        let created = test.engine().create_collection("docs", schema(prefix, hnsw(), Metric::L2)).unwrap();
        let ops =
            (0..1100u64).map(|number| put(&format!("{prefix}{number}"), &[("v", &blob(&vector(number)))]));
        assert!(test.engine().write(ops.collect()).iter().all(Result::is_ok));
        test.engine().drop_collection("docs", documents).unwrap();
        assert!(matches!(test.engine().collection("docs"), Err(CollectionError::NotFound { .. })));
        assert_eq!(created.version.version, 1);
        for _ in 0..2 {
            let infos = test.engine().collections();
            assert_eq!(infos.len(), 1);
            assert_eq!((infos[0].name.as_str(), infos[0].documents), ("all", 1100));
            test.crash();
        }
    }
    // Its id is not assigned again.
    let created = test.engine().create_collection("docs", schema("keep:", hnsw(), Metric::L2)).unwrap();
    assert_eq!((created.version.id, created.documents), (4, 1100));
}

fn with_colour(mut schema: Schema) -> Schema {
    schema.fields.push(engine::FieldSchema {
        name: "colour".to_owned(),
        kind: engine::FieldKind::Tag { separator: b'|', case_sensitive: true },
    });
    schema
}

#[test]
fn a_rebuilt_version_is_active_after_the_switch() {
    let mut test = TestEngine::new();
    let v = |number| blob(&vector(number));
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    test.put("doc:1", &[("colour", b"red"), ("v", &v(1))]);
    let before = test.engine().collection("docs").unwrap().version;
    let next = with_colour(schema("doc:", hnsw(), Metric::Cosine));
    let info = test.engine().rebuild_collection("docs", next.clone()).unwrap();
    assert_eq!(info.version, before);
    assert_eq!(info.rebuilding.map(|version| (version.id, version.version)), Some((before.id, 2)));
    assert!(test.engine().rebuild_collection("docs", next.clone()).is_ok());
    let other = schema("other:", hnsw(), Metric::Cosine);
    assert!(matches!(
        test.engine().rebuild_collection("docs", other),
        Err(CollectionError::Rebuilding { .. })
    ));
    test.put("doc:2", &[("colour", b"red|blue"), ("v", &v(2))]);
    assert!(test.engine().parse_filter("docs", "@colour:{red}").is_err());
    test.crash();
    test.put("doc:3", &[("colour", b"blue"), ("v", &v(3))]);
    test.delete("doc:1");
    test.put("doc:4", &[("v", &v(4))]);
    let target = vector(3);
    let (request, budget) = (query("docs", &target, 9), engine::ByteBudget::new(engine::RESPONSE_BYTES_MAX));
    assert!(test.engine().search_version(&request, before, &budget).is_ok());
    let info = test.engine().switch_collection("docs").unwrap();
    assert_eq!((info.version.version, info.rebuilding, info.documents), (2, None, 3));
    // A query for the previous version does not run on another one.
    let other = test.engine().search_version(&request, before, &budget);
    assert!(matches!(other, Err(engine::QueryError::VersionMismatch { .. })), "{other:?}");
    assert!(test.engine().search_version(&request, info.version, &budget).is_ok());
    assert_eq!(test.engine().version("docs"), Some(info.version));
    assert_eq!(info.schema, next);
    for _ in 0..2 {
        let filter = test.filter("docs", "@colour:{blue}");
        let vector = vector(2);
        let found = test.keys(&Query { filter: Some(&filter), ..query("docs", &vector, 9) });
        assert_eq!(found, ["doc:2", "doc:3"]);
        test.crash();
    }
    assert!(matches!(test.engine().switch_collection("docs"), Err(CollectionError::NotRebuilding { .. })));
    assert!(matches!(test.engine().switch_collection("none"), Err(CollectionError::NotFound { .. })));
}

#[test]
fn violations_of_a_schema_being_built_are_counted_not_rejected() {
    let test = TestEngine::new();
    let mut lax = schema("doc:", hnsw(), Metric::L2);
    lax.fields.remove(3);
    test.engine().create_collection("docs", lax).unwrap();
    test.engine().rebuild_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
    test.put("doc:1", &[("year", b"soon")]);
    let info = test.engine().switch_collection("docs").unwrap();
    assert_eq!((info.documents, info.failures), (0, 1));
    assert!(test.write(put("doc:2", &[("year", b"soon")])).is_err());
}

#[test]
fn a_rebuilt_version_reuses_vectors_of_unchanged_embeddings() {
    let mut test = TestEngine::new();
    test.engine().create_collection("docs", embedding_schema("doc:")).unwrap();
    for number in 0..20 {
        let title = format!("t{number}");
        test.write(embedded_put(test.engine(), &format!("doc:{number}"), &[("title", title.as_bytes())]))
            .unwrap();
    }
    let info = test.engine().rebuild_collection("docs", with_colour(embedding_schema("doc:"))).unwrap();
    assert_eq!(info.unembedded, 0);
    test.crash();
    test.engine().switch_collection("docs").unwrap();
    assert_eq!(test.keys(&query("docs", &vector_of_text("t7"), 1)), ["doc:7"]);

    // Another text has another vector, so these must be computed again.
    let mut titles_only = embedding_schema("doc:");
    titles_only.fields[4] = vector_field("v", hnsw(), Metric::Cosine, Some(&["title"]));
    let info = test.engine().rebuild_collection("docs", titles_only).unwrap();
    assert_eq!(info.unembedded, 20);
    let early = test.engine().switch_collection("docs");
    assert!(matches!(early, Err(CollectionError::VectorsMissing { missing: 20, .. })), "{early:?}");
    assert_eq!(test.keys(&query("docs", &vector_of_text("t7"), 1)), ["doc:7"]);
    assert_eq!(embed_missing(test.engine(), "docs"), 20);
    // Writes contain vectors for both versions while both exist.
    let texts = test.engine().texts_to_embed(b"doc:x", &fields(&[("title", b"x")]));
    assert_eq!(texts.len(), 2);
    test.write(embedded_put(test.engine(), "doc:x", &[("title", b"x")])).unwrap();
    let info = test.engine().switch_collection("docs").unwrap();
    assert_eq!((info.documents, info.vectors, info.unembedded), (21, 21, 0));
    assert_eq!(test.keys(&query("docs", &vector_of_text("x"), 1)), ["doc:x"]);
}

#[test]
fn a_collection_created_under_concurrent_writes_misses_no_document() {
    let test = TestEngine::new();
    let engine = test.engine();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                scope.spawn(move || {
                    for number in 0..400u64 {
                        let key = format!("doc:{writer}:{}", number % 150);
                        let op = if number % 7 == 3 {
                            Op::Delete { key: key.into(), expected: Expected::Any }
                        } else {
                            put(&key, &[("v", &blob(&vector(1000 * writer + number)))])
                        };
                        engine.write(vec![op]).remove(0).unwrap();
                    }
                })
            })
            .collect();
        for round in 0..5 {
            engine.create_collection(&format!("c{round}"), schema("doc:", hnsw(), Metric::L2)).unwrap();
        }
        for writer in writers {
            writer.join().unwrap();
        }
    });
    engine.create_collection("last", schema("doc:", hnsw(), Metric::L2)).unwrap();
    let expected = test.scroll("last", None);
    assert!(!expected.is_empty());
    let nearest = |collection: &str| {
        let target = vector(5);
        let exact = query(collection, &target, 1000).exact(true);
        let hits = engine.search(&exact).unwrap().hits;
        hits.into_iter().map(|hit| (hit.document.key, hit.distance.unwrap().to_bits())).collect::<Vec<_>>()
    };
    for round in 0..5 {
        let collection = format!("c{round}");
        assert_eq!(test.scroll(&collection, None), expected);
        assert_eq!(nearest(&collection).len(), expected.len());
        assert_eq!(
            nearest(&collection).iter().map(|hit| hit.1).collect::<Vec<_>>(),
            nearest("last").iter().map(|hit| hit.1).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_computed_vector_is_rounded_to_its_stored_type() {
    let mut test = TestEngine::new();
    let mut half = embedding_schema("doc:");
    let engine::FieldKind::Vector(vector) = &mut half.fields[4].kind else { unreachable!() };
    (vector.vector_type, vector.metric) = (engine::VectorType::Float16, Metric::L2);
    test.engine().create_collection("docs", half.clone()).unwrap();
    test.write(embedded_put(test.engine(), "doc:1", &[("title", b"x")])).unwrap();
    let distance = |test: &TestEngine| {
        test.engine().search(&query("docs", &vector_of_text("x"), 1)).unwrap().hits[0].distance.unwrap()
    };
    let before = distance(&test);
    assert!(before > 0.0 && before < 1e-4, "rounded to half precision: {before}");
    test.crash();
    assert_eq!(distance(&test), before);

    // The vector has a direction, but is all zeros in half precision. It is rejected when written, because it could
    // not be read again.
    half.prefixes = vec![b"cos:".to_vec()];
    let engine::FieldKind::Vector(vector) = &mut half.fields[4].kind else { unreachable!() };
    vector.metric = Metric::Cosine;
    test.engine().create_collection("cosine", half).unwrap();
    let Op::Put { key, fields, mut vectors, expires_at_ms, expected } =
        embedded_put(test.engine(), "cos:1", &[("title", b"y")])
    else {
        unreachable!()
    };
    vectors[0].values = vec![1e-9; DIM];
    let error = test.write(Op::Put { key, fields, vectors, expires_at_ms, expected }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "document \"cos:1\", field \"v\": vector is all zeros: it has no direction, so cosine distance is \
         undefined"
    );
}
