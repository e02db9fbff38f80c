//! Searching, filtering, paging and counting, compared with an exhaustive scan.

use std::collections::BTreeSet;

use engine::{ByteBudget, Field, Filter, Metric, PAGE_BYTES, Query, QueryError};

use crate::test_engine::*;

const DOCUMENTS: u64 = 600;

/// Documents 0 to 599: `category` has the remainders of the number, `year` the number itself.
fn filled(metric: Metric, algorithm: engine::Algorithm) -> TestEngine {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", algorithm, metric)).unwrap();
    let ops = (0..DOCUMENTS)
        .map(|number| {
            let categories = format!("All, mod {}, mod {} of 100", number % 2, number % 100);
            put(
                &format!("doc:{number:03}"),
                &[
                    ("title", format!("Number {number}").as_bytes()),
                    ("category", categories.as_bytes()),
                    ("year", number.to_string().as_bytes()),
                    ("v", &blob(&vector(number))),
                ],
            )
        })
        .collect();
    assert!(test.engine().write(ops).iter().all(Result::is_ok));
    test
}

/// The oracle: all documents for which `matches_filter` is true, nearest first, in double precision.
fn nearest(metric: Metric, query: &[f32], matches_filter: impl Fn(u64) -> bool) -> Vec<(f64, u64)> {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let mut found: Vec<(f64, u64)> = (0..DOCUMENTS)
        .filter(|number| matches_filter(*number))
        .map(|number| {
            let v = vector(number);
            let distance = match metric {
                Metric::Cosine => 1.0 - dot(query, &v) / (dot(query, query) * dot(&v, &v)).sqrt(),
                Metric::Ip => 1.0 - dot(query, &v),
                Metric::L2 => dot(query, query) + dot(&v, &v) - 2.0 * dot(query, &v),
            };
            (distance, number)
        })
        .collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found
}

#[test]
fn every_metric_agrees_with_a_scan() {
    for metric in [Metric::Cosine, Metric::Ip, Metric::L2] {
        for algorithm in [engine::Algorithm::Flat, hnsw()] {
            let test = filled(metric, algorithm);
            for linked in [false, true] {
                if linked {
                    test.settle();
                }
                for number in 0..20 {
                    let target = vector(10_000 + number);
                    let expected = nearest(metric, &target, |_| true);
                    let exact = query("docs", &target, 10).exact(true);
                    let found = test.engine().search(&exact).unwrap();
                    assert_eq!(found.hits.len(), 10);
                    for (hit, (distance, number)) in found.hits.iter().zip(&expected) {
                        assert_eq!(text(&hit.document.key), format!("doc:{number:03}"), "{metric:?}");
                        assert!((f64::from(hit.distance.unwrap()) - distance).abs() < 1e-5, "{metric:?}");
                        let score = match metric {
                            Metric::Cosine | Metric::Ip => 1.0 - hit.distance.unwrap(),
                            Metric::L2 => 1.0 / (1.0 + hit.distance.unwrap()),
                        };
                        assert_eq!(hit.score, score);
                    }
                }
            }
        }
    }
}

#[test]
fn returns_as_many_hits_as_match_at_every_selectivity() {
    let test = filled(Metric::Cosine, hnsw());
    type Matches = fn(u64) -> bool;
    let filters: [(&str, Matches); 11] = [
        ("*", |_| true),
        ("@category:{all}", |_| true),
        ("@category:{mod 1}", |number| number % 2 == 1),
        ("-@category:{mod 1}", |number| number % 2 == 0),
        ("@category:{mod 7 of 100}", |number| number % 100 == 7),
        ("@category:{mod 7 of 100 | mod 8 of 100} @year:[(7 +inf]", |number| {
            matches!(number % 100, 7 | 8) && number > 7
        }),
        ("@year:[0 59]", |number| number < 60),
        ("@year:[100 (104] | @year:[500]", |number| (100..104).contains(&number) || number == 500),
        ("@year:[599 +inf]", |number| number == 599),
        ("@category:{none}", |_| false),
        ("@year:[600 +inf]", |_| false),
    ];
    for linked in [false, true] {
        if linked {
            test.settle();
        }
        for (text, matches_filter) in filters {
            let filter = test.filter("docs", text);
            let matches = (0..DOCUMENTS).filter(|number| matches_filter(*number)).count();
            assert_eq!(test.count("docs", text), matches as u64, "{text}");
            for k in [1, 5, 50, 1000] {
                let target = vector(77_777);
                let filtered = Query { filter: Some(&filter), ..query("docs", &target, k) };
                let found = test.keys(&filtered);
                let expected: Vec<String> = nearest(Metric::Cosine, &target, matches_filter)
                    .into_iter()
                    .map(|(_, number)| format!("doc:{number:03}"))
                    .collect();
                assert_eq!(found.len(), k.min(matches), "{text}, k {k}");
                let distinct: BTreeSet<&String> = found.iter().collect();
                assert_eq!(distinct.len(), found.len(), "{text}, k {k}");
                assert!(found.iter().all(|key| expected.contains(key)), "{text}, k {k}");
                let exact = filtered.exact(true);
                assert_eq!(test.keys(&exact), expected[..k.min(matches)], "{text}, k {k}");
            }
            let mut scrolled: Vec<String> =
                (0..DOCUMENTS).filter(|n| matches_filter(*n)).map(|n| format!("doc:{n:03}")).collect();
            scrolled.truncate(100);
            let page = test.engine().scroll("docs", Some(&filter), None, 100).unwrap();
            let page: Vec<String> = page.documents.iter().map(|document| self::text(&document.key)).collect();
            assert_eq!(page, scrolled, "{text}");
        }
    }
}

#[test]
fn offset_and_min_score_select_from_the_same_ranking() {
    let test = filled(Metric::Cosine, hnsw());
    let target = vector(5);
    let all = test.engine().search(&query("docs", &target, 40).exact(true)).unwrap().hits;
    let page = query("docs", &target, 7).exact(true).offset(10);
    assert_eq!(test.engine().search(&page).unwrap().hits, all[10..17]);
    let beyond = query("docs", &target, 1000).offset(9_000);
    assert_eq!(test.engine().search(&beyond).unwrap().hits, []);
    let lowest = all[5].score;
    let good = Query { min_score: Some(lowest), ..query("docs", &target, 40).exact(true) };
    assert_eq!(test.engine().search(&good).unwrap().hits, all[..6]);
}

#[test]
fn only_requested_fields_are_returned() {
    let test = filled(Metric::Cosine, hnsw());
    test.put("doc:003", &[("title", b"x"), ("colour", b"red"), ("v", &blob(&vector(3)))]);
    let target = vector(3);
    let names = |fields: Option<&[String]>| {
        let hit =
            test.engine().search(&Query { fields, ..query("docs", &target, 1) }).unwrap().hits.remove(0);
        hit.document.fields.iter().map(|field: &Field| text(&field.name)).collect::<Vec<String>>()
    };
    assert_eq!(names(None), ["title", "colour"]);
    assert_eq!(names(Some(&[])), [] as [&str; 0]);
    assert_eq!(names(Some(&["v".to_owned(), "year".to_owned()])), ["v"]);
}

#[test]
fn a_response_stays_within_its_byte_budget() {
    let test = filled(Metric::Cosine, hnsw());
    let long = [b'x'; 1000];
    for number in 0..4 {
        test.put(&format!("doc:00{number}"), &[("title", &long), ("v", &blob(&vector(number)))]);
    }
    let (target, version) = (vector(2), test.engine().version("docs").unwrap());
    let search = |k, fields, budget: &ByteBudget| {
        let query = Query { fields, ..query("docs", &target, k).exact(true) };
        test.engine().search_version(&query, version, budget).map(|found| found.hits.len())
    };
    // A rejected search returns the bytes it reserved.
    let budget = ByteBudget::new(1500);
    for _ in 0..3 {
        let rejected = search(600, None, &budget).unwrap_err();
        assert!(matches!(rejected, QueryError::ResponseSize { max: 1500 }), "{rejected}");
        let rejected = rejected.to_string();
        assert!(rejected.contains("(k)") && rejected.contains("(fields)"), "{rejected}");
    }
    assert_eq!(search(1, None, &budget).unwrap(), 1);
    // Searches answered together share the budget; fields that are not requested do not count.
    assert!(search(1, None, &budget).is_err());
    assert_eq!(search(30, Some(&[]), &budget).unwrap(), 30);
}

#[test]
fn a_scroll_page_ends_with_the_document_that_reaches_the_byte_limit() {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    let large = vec![b'x'; PAGE_BYTES / 4];
    let ops = (0..11).map(|number| put(&format!("doc:{number:02}"), &[("title", &large)])).collect();
    assert!(test.engine().write(ops).iter().all(Result::is_ok));
    let (mut pages, mut keys, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = test.engine().scroll("docs", None, after, 10).unwrap();
        pages.push(page.documents.len());
        keys.extend(page.documents.iter().map(|document| text(&document.key)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [4, 4, 3]);
    assert_eq!(keys, (0..11).map(|number| format!("doc:{number:02}")).collect::<Vec<_>>());
    // A page that is full with the last document is the last page.
    let page = test.engine().scroll("docs", None, Some(page_before_last_four(&test)), 10).unwrap();
    assert_eq!((page.documents.len(), page.next), (4, None));
}

/// The end of a page after which four documents remain.
fn page_before_last_four(test: &TestEngine) -> u64 {
    let first = test.engine().scroll("docs", None, None, 3).unwrap();
    let rest = test.engine().scroll("docs", None, first.next, 4).unwrap();
    rest.next.unwrap()
}

#[test]
fn invalid_queries_are_rejected_with_a_message() {
    let test = filled(Metric::Cosine, hnsw());
    let mut two = schema("two:", hnsw(), Metric::Cosine);
    two.fields.push(vector_field("w", hnsw(), Metric::L2, None));
    test.engine().create_collection("two", two).unwrap();
    let good = vector(1);
    let colour = ["colour".to_owned()];
    let base = query("docs", &good, 3);
    let tag = Filter::Tag { field: "colour".to_owned(), values: vec![b"red".to_vec()] };
    let leg = &base.legs[0];
    let cases: [(Query<'_>, &str); 18] = [
        (query("dogs", &good, 3), "no collection or alias \"dogs\"; there are: docs, two"),
        (Query { legs: Vec::new(), ..base.clone() }, "a query needs exactly one leg, found 0"),
        (
            Query { legs: vec![leg.clone(), leg.clone()], ..base.clone() },
            "a query needs exactly one leg, found 2",
        ),
        (base.clone().k(0), "k must be 1 to 1000, found 0"),
        (base.clone().k(1001), "k must be 1 to 1000, found 1001"),
        (base.clone().offset(9_998), "offset + k must be 1 to 10000, found 10001"),
        (base.clone().offset(usize::MAX), "offset + k must be 1 to 10000, found 18446744073709551615"),
        (base.clone().ef_search(Some(0)), "ef_search must be 1 to 4096, found 0"),
        (base.clone().ef_search(Some(4097)), "ef_search must be 1 to 4096, found 4097"),
        (Query { min_score: Some(f32::NAN), ..base.clone() }, "min_score must be a finite number, found NaN"),
        (query("docs", &good[1..], 3), "query vector: vector dimensions do not match: expected 8, found 7"),
        (
            query("docs", &[0.0; DIM], 3),
            "query vector: vector is all zeros: it has no direction, so cosine distance is undefined",
        ),
        (
            query("docs", &[f32::INFINITY; DIM], 3),
            "query vector: vector value 0 is inf: every value must be finite",
        ),
        (query("two", &good, 3), "name the VECTOR field to search in collection \"two\"; there are: v, w"),
        (
            base.clone().field(Some("year")),
            "field \"year\" of collection \"docs\" is NUMERIC, a search needs a VECTOR field: v",
        ),
        (
            base.clone().field(Some("colour")),
            "no field \"colour\" in the schema of collection \"docs\"; its fields: title, content, category, year, v",
        ),
        (
            Query { fields: Some(&colour), ..base.clone() },
            "no field \"colour\" in the schema of collection \"docs\"; its fields: title, content, category, year, v",
        ),
        (
            Query { filter: Some(&tag), ..base.clone() },
            "filter: no field \"colour\" at byte 0; fields that a filter can use: category, year",
        ),
    ];
    for (query, message) in cases {
        let error = test.engine().search(&query).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = test.engine().parse_filter("docs", "@title:{x}").unwrap_err();
    assert!(matches!(error, QueryError::Filter(_)), "{error}");
    assert!(matches!(test.engine().scroll("docs", None, None, 0), Err(QueryError::Limit { .. })));
    assert!(matches!(test.engine().scroll("docs", None, None, 10_001), Err(QueryError::Limit { .. })));
    assert!(test.engine().search(&query("two", &good, 3).field(Some("w"))).is_ok());
}

#[test]
fn a_document_in_two_collections_is_found_in_both() {
    let test = TestEngine::new();
    test.engine().create_collection("a", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    test.engine().create_collection("b", schema("doc:x:", engine::Algorithm::Flat, Metric::L2)).unwrap();
    test.put("doc:x:1", &[("v", &blob(&vector(1)))]);
    test.put("doc:2", &[("v", &blob(&vector(2)))]);
    test.put("other", &[("v", b"not a vector, but in no collection")]);
    let target = vector(1);
    assert_eq!(test.keys(&query("a", &target, 10)), ["doc:x:1", "doc:2"]);
    assert_eq!(test.keys(&query("b", &target, 10)), ["doc:x:1"]);
    test.delete("doc:x:1");
    assert_eq!(test.keys(&query("a", &target, 10)), ["doc:2"]);
    assert_eq!(test.keys(&query("b", &target, 10)), [] as [&str; 0]);
}

#[test]
fn a_document_without_a_vector_is_filtered_and_scrolled_but_not_searched() {
    let test = TestEngine::new();
    test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::Cosine)).unwrap();
    test.put("doc:1", &[("category", b"a")]);
    test.put("doc:2", &[("category", b"a"), ("v", &blob(&vector(2)))]);
    let target = vector(2);
    assert_eq!(test.keys(&query("docs", &target, 10)), ["doc:2"]);
    assert_eq!(test.count("docs", "@category:{a}"), 2);
    assert_eq!(test.scroll("docs", None), ["doc:1", "doc:2"]);
    test.put("doc:2", &[("category", b"b")]);
    assert_eq!(test.keys(&query("docs", &target, 10)), [] as [&str; 0]);
    assert_eq!(test.count("docs", "@category:{a}"), 1);
}
