//! Matches of filters, compared with an independent evaluation of the same filter.

use std::{collections::BTreeSet, fmt};

use serde_json::json;

use crate::{
    random::Random,
    test_store::{DOCS, TestStore, document, flat, path},
};

const SEED: u64 = 0x6e65_6172;

/// Tags of random documents and filters.
const TAGS: &[&str] = &["red", "green", "two words", "a-b", "C++", "{x}", "日本", "50%", "never"];

const NUMBERS: &[f64] = &[-1e300, -7.5, -1.0, 0.0, 0.1, 1.0, 2.0, 2.5, 1000.0, 1e16, 1e300];

/// The expected fields of a document.
struct TestDocument {
    tags: Vec<&'static str>,
    codes: Vec<&'static str>,
    year: Option<f64>,
    price: Option<f64>,
}

impl TestDocument {
    fn random(random: &mut Random) -> TestDocument {
        let tags = |random: &mut Random, max: usize| {
            (0..random.below(max + 1)).map(|_| random.one_of(&TAGS[..TAGS.len() - 1])).collect()
        };
        let number = |random: &mut Random| (random.below(5) > 0).then(|| random.one_of(NUMBERS));
        TestDocument {
            tags: tags(random, 3),
            codes: tags(random, 2),
            year: number(random),
            price: number(random),
        }
    }

    fn json(&self, number: usize) -> serde_json::Value {
        let mut json = json!({"id": number.to_string(), "place": [number, 1]});
        if !self.tags.is_empty() {
            json["tags"] = json!(self.tags);
        }
        if !self.codes.is_empty() {
            json["Code-1"] = json!(self.codes);
        }
        for (name, value) in [("year", self.year), ("price", self.price)] {
            if let Some(value) = value {
                json[name] = json!(value);
            }
        }
        json
    }
}

/// A filter evaluated by the test. `Display` escapes every special character.
#[derive(Clone, Debug)]
enum TestFilter {
    Tags(Vec<String>),
    Codes(Vec<String>),
    Year(Range),
    Price(Range),
    All(Vec<TestFilter>),
    Any(Vec<TestFilter>),
    Not(Box<TestFilter>),
}

#[derive(Clone, Copy, Debug)]
struct Range {
    min: f64,
    min_exclusive: bool,
    max: f64,
    max_exclusive: bool,
}

impl Range {
    fn random(random: &mut Random) -> Range {
        let bound = |random: &mut Random, unbounded: f64| match random.below(4) {
            0 => unbounded,
            _ => random.one_of(NUMBERS),
        };
        let (one, other) = (bound(random, f64::NEG_INFINITY), bound(random, f64::INFINITY));
        Range {
            min: one.min(other),
            min_exclusive: random.below(3) == 0,
            max: one.max(other),
            max_exclusive: random.below(3) == 0,
        }
    }

    fn contains(self, number: Option<f64>) -> bool {
        number.is_some_and(|number| {
            let above = if self.min_exclusive { number > self.min } else { number >= self.min };
            let below = if self.max_exclusive { number < self.max } else { number <= self.max };
            above && below
        })
    }
}

impl TestFilter {
    fn random(random: &mut Random, depth: usize) -> TestFilter {
        let words = |random: &mut Random| {
            let word = |random: &mut Random| {
                let word = random.one_of(TAGS);
                if random.below(2) == 0 { word.to_owned() } else { word.to_ascii_uppercase() }
            };
            (0..1 + random.below(3)).map(|_| word(random)).collect()
        };
        let parts = |random: &mut Random| {
            (0..2 + random.below(2)).map(|_| TestFilter::random(random, depth - 1)).collect()
        };
        match random.below(if depth == 0 { 4 } else { 7 }) {
            0 => TestFilter::Tags(words(random)),
            1 => TestFilter::Codes(words(random)),
            2 => TestFilter::Year(Range::random(random)),
            3 => TestFilter::Price(Range::random(random)),
            4 => TestFilter::All(parts(random)),
            5 => TestFilter::Any(parts(random)),
            _ => TestFilter::Not(Box::new(TestFilter::random(random, depth - 1))),
        }
    }

    fn matches(&self, document: &TestDocument) -> bool {
        match self {
            TestFilter::Tags(words) => {
                words.iter().any(|word| document.tags.iter().any(|tag| tag.eq_ignore_ascii_case(word)))
            }
            TestFilter::Codes(words) => words.iter().any(|word| document.codes.iter().any(|tag| tag == word)),
            TestFilter::Year(range) => range.contains(document.year),
            TestFilter::Price(range) => range.contains(document.price),
            TestFilter::All(parts) => parts.iter().all(|part| part.matches(document)),
            TestFilter::Any(parts) => parts.iter().any(|part| part.matches(document)),
            TestFilter::Not(part) => !part.matches(document),
        }
    }
}

impl fmt::Display for TestFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = |f: &mut fmt::Formatter<'_>, field: &str, words: &[String]| {
            write!(f, "@{field}:{{")?;
            for (position, word) in words.iter().enumerate() {
                if position > 0 {
                    f.write_str(" | ")?;
                }
                for c in word.chars() {
                    let special = c.is_ascii() && !c.is_ascii_alphanumeric();
                    write!(f, "{}{c}", if special { "\\" } else { "" })?;
                }
            }
            f.write_str("}")
        };
        let range = |f: &mut fmt::Formatter<'_>, field: &str, range: &Range| {
            let (min_exclusive, max_exclusive) =
                (if range.min_exclusive { "(" } else { "" }, if range.max_exclusive { "(" } else { "" });
            write!(f, "@{field}:[{min_exclusive}{:e} {max_exclusive}{:e}]", range.min, range.max)
        };
        let parts = |f: &mut fmt::Formatter<'_>, parts: &[TestFilter], between: &str| {
            f.write_str("(")?;
            for (position, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if position > 0 { between } else { "" })?;
            }
            f.write_str(")")
        };
        match self {
            TestFilter::Tags(words) => tags(f, "tags", words),
            TestFilter::Codes(words) => tags(f, r"Code\-1", words),
            TestFilter::Year(bounds) => range(f, "year", bounds),
            TestFilter::Price(bounds) => range(f, "price", bounds),
            TestFilter::All(all) => parts(f, all, " "),
            TestFilter::Any(any) => parts(f, any, " | "),
            TestFilter::Not(part) => write!(f, "-{part}"),
        }
    }
}

async fn create(store: &TestStore) {
    store
        .create(json!([
            {"name": "tags", "kind": "tag"},
            {"name": "Code-1", "kind": "tag", "separator": ";", "case_sensitive": true},
            {"name": "year", "kind": "numeric"},
            {"name": "price", "kind": "numeric"},
            flat(2, "l2"),
        ]))
        .await;
}

pub(crate) async fn random_filters_match_the_expected_documents(store: &TestStore) {
    create(store).await;
    let mut random = Random::new(SEED);
    let documents: Vec<TestDocument> = (0..300).map(|_| TestDocument::random(&mut random)).collect();
    let json: Vec<_> = documents.iter().enumerate().map(|(number, document)| document.json(number)).collect();
    store.load(&json).await;
    let mut sizes = BTreeSet::new();
    for round in 0..400 {
        let filter_tree = TestFilter::random(&mut random, round % 4);
        let filter = filter_tree.to_string();
        let matching = documents.iter().enumerate().filter(|(_, document)| filter_tree.matches(document));
        let expected: BTreeSet<String> = matching.map(|(number, _)| number.to_string()).collect();
        assert_eq!(store.count(&filter).await, expected.len() as u64, "{filter}");
        let search = json!({"vector": [0, 0], "filter": filter, "k": 300, "fields": []});
        let found = store.ids(search).await;
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{filter}");
        let nearest_first: Vec<usize> = found.iter().map(|id| id.parse().unwrap()).collect();
        assert!(nearest_first.is_sorted(), "{filter}: {nearest_first:?}");
        sizes.insert(expected.len());
    }
    assert!(sizes.len() > 50 && sizes.contains(&0) && sizes.contains(&300), "too little variety: {sizes:?}");
}

pub(crate) async fn finds_the_nearest_matches_at_every_selectivity(store: &TestStore) {
    let hnsw = json!({"name": "place", "kind": "vector", "dim": 8, "metric": "l2"});
    store.create(json!([{"name": "rank", "kind": "numeric"}, hnsw])).await;
    let mut random = Random::new(SEED);
    let vectors: Vec<Vec<f32>> = (0..2000).map(|_| random.vector(8)).collect();
    let documents: Vec<_> = vectors
        .iter()
        .enumerate()
        .map(|(number, vector)| json!({"id": number.to_string(), "rank": number, "place": vector}))
        .collect();
    store.load(&documents).await;
    for matching in [0, 1, 2, 20, 200, 1000, 1900, 1999, 2000] {
        let (mut hits, mut expected) = (0, 0);
        for _ in 0..5 {
            let query = random.vector(8);
            let filter = format!("@rank:[-inf ({matching}]");
            let found =
                store.ids(json!({"vector": query, "filter": filter, "k": 10, "ef_search": 400})).await;
            assert!(found.iter().all(|id| id.parse::<usize>().unwrap() < matching), "{matching}: {found:?}");
            let mut nearest: Vec<(f64, usize)> = vectors[..matching]
                .iter()
                .enumerate()
                .map(|(number, vector)| {
                    let distance = vector.iter().zip(&query).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                    (distance, number)
                })
                .collect();
            nearest.sort_by(|one, other| one.0.total_cmp(&other.0));
            let nearest: BTreeSet<String> =
                nearest.iter().take(10).map(|(_, number)| number.to_string()).collect();
            assert_eq!(found.len(), nearest.len(), "{matching} match, but too few were found");
            expected += nearest.len();
            hits += found.iter().filter(|id| nearest.contains(*id)).count();
        }
        assert!(
            hits as f64 >= 0.95 * expected as f64,
            "{matching} match: {hits} of the {expected} nearest were found"
        );
    }
}

pub(crate) async fn tags_are_case_sensitive_only_if_the_schema_says_so(store: &TestStore) {
    create(store).await;
    store.load(&[json!({"id": "1", "tags": ["Billing"], "Code-1": ["AbC"]})]).await;
    for (filter, count) in [
        ("@tags:{billing}", 1),
        ("@tags:{BILLING}", 1),
        (r"@Code\-1:{AbC}", 1),
        (r"@Code\-1:{abc}", 0),
        (r"@Code\-1:{ABC}", 0),
    ] {
        assert_eq!(store.count(filter).await, count, "{filter}");
    }
    let fields = store.get(&document("1")).await.json["fields"].clone();
    assert_eq!(fields, json!({"tags": ["Billing"], "Code-1": ["AbC"]}), "values keep their case");
}

pub(crate) async fn rejects_invalid_filters(store: &TestStore) {
    create(store).await;
    let nested = format!("{}@tags:{{x}}{}", "(".repeat(40), ")".repeat(40));
    let long = format!("@tags:{{{}}}", "x".repeat(20_000));
    let many = format!("@tags:{{{}}}", vec!["x"; 2000].join("|"));
    for filter in [
        "",
        "@tags:{",
        "@tags:{}",
        "@nowhere:{x}",
        "@tags:[1 2]",
        "@year:{x}",
        "@year:[5 1]",
        "@year:[nan 1]",
        "@tags:{x*}",
        "hello",
        "@place:[1 2]",
        "* => [KNN 3 @place $v]",
        "@tags:{x})=>[KNN 3 @place $v]//",
        &nested,
        &long,
        &many,
    ] {
        for response in [
            store.post(&path(DOCS, "search"), &json!({"vector": [1, 2], "filter": filter})).await,
            store.post(&path(DOCS, "delete"), &json!({"filter": filter})).await,
        ] {
            let start = filter.get(..40).unwrap_or(filter);
            assert_eq!(response.status, 422, "{start:?}: {}", response.json);
        }
    }
}
