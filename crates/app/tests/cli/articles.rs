//! Commands with the real model.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use testing::real_model;

use crate::program::TestHome;

const ARTICLES: &str = "id,title,body,category,year\n\
    a,Reset your password,\"Choose 'Forgot password' on the sign-in page, and follow the link we send you.\",account,2023\n\
    b,Track a parcel,\"Every parcel has a number; enter it on the tracking page to see where it is.\",shipping,2024\n\
    c,Get a refund,\"Send the goods back within 30 days and the money returns to your card.\",billing,2024\n";

fn home_with_articles() -> Option<(TestHome, String)> {
    let models = real_model::models()?.to_str().unwrap().to_owned();
    let home = TestHome::new();
    let file = home.write("articles.csv", ARTICLES);
    let out = home.ok(&["index", &file, "--tag", "category", "--numeric", "year", "--models-dir", &models]);
    assert_eq!(out, "rows in 3 = indexed 3 + unchanged 0 + rejected 0\n");
    Some((home, models))
}

#[test]
fn search_finds_the_matching_articles() {
    let Some((home, models)) = home_with_articles() else { return };
    let response = home.json(&["search", "i", "forgot", "my", "login", "--models-dir", &models]);
    assert_eq!(response["query"], "i forgot my login");
    assert_eq!(response["results"][0]["id"], "a");
    assert_eq!(response["results"][0]["title"], "Reset your password");
    assert_eq!(response["results"].as_array().unwrap().len(), 3);
    assert!(response["timing"]["embed_us"].is_u64() && response["took_ms"].is_number());

    let text = home.ok(&["search", "where is my package", "-k", "1", "--models-dir", &models]);
    assert!(text.contains("Track a parcel") && text.contains("embed"), "{text}");
    assert!(!text.contains("Reset"), "{text}");

    let args = ["search", "i forgot my login", "--filter", "@category:{billing|shipping} @year:[2024 +inf]"];
    let response = home.json(&[&args[..], &["--exact", "--models-dir", &models]].concat());
    let ids: Vec<&str> =
        response["results"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    assert!(!ids.contains(&"a"));
    let none = home.ok(&["search", "x", "--min-score", "0.99", "--models-dir", &models]);
    assert!(none.contains("no results"), "{none}");
    home.fails(1, &["search", "x", "-k", "0", "--models-dir", &models], &["k"]);
}

#[test]
fn a_missing_model_error_says_how_to_get_it() {
    let home = TestHome::new();
    let file = home.write("articles.csv", ARTICLES);
    home.fails(1, &["index", &file], &["all-MiniLM-L6-v2", "nearfield model pull"]);
}

/// Pairs of a query and a relevant article, from the relevance judgements of the knowledge base.
fn relevant_pairs() -> HashSet<(String, String)> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/eval");
    let queries = std::fs::read_to_string(demo.join("queries.jsonl")).unwrap();
    let texts: HashMap<String, String> = queries
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|query| (query["id"].as_str().unwrap().to_owned(), query["text"].as_str().unwrap().to_owned()))
        .collect();
    let qrels = std::fs::read_to_string(demo.join("qrels.tsv")).unwrap();
    let pair = |line: &str| {
        let mut parts = line.split('\t');
        (texts[parts.next().unwrap()].clone(), parts.next().unwrap().to_owned())
    };
    qrels.lines().map(pair).collect()
}

#[test]
fn demo_answers_its_questions_correctly() {
    let Some(models) = real_model::models() else { return };
    let home = TestHome::new();
    let out = home.ok(&["demo", "--no-serve", "--json", "--models-dir", models.to_str().unwrap()]);
    let mut lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let report = lines.next().unwrap();
    assert_eq!((&report["indexed"], &report["rejected"]), (&160.into(), &0.into()));
    let responses: Vec<_> = lines.collect();
    assert_eq!(responses.len(), 6);
    let relevant = relevant_pairs();
    for response in &responses {
        let pair =
            (response["question"].as_str().unwrap().to_owned(), response["id"].as_str().unwrap().to_owned());
        assert!(relevant.contains(&pair) && response["took_ms"].is_number(), "{response}");
    }
    assert_eq!(home.json(&["collections"])["collections"][0]["name"], "kb");
}

#[test]
fn eval_reports_quality_measures() {
    let Some(models) = real_model::models() else { return };
    let home = TestHome::new();
    home.write(
        "set/corpus.jsonl",
        "{\"id\":\"a\",\"title\":\"Reset your password\",\"text\":\"Follow the link we send you.\"}\n\
         {\"id\":\"b\",\"title\":\"Track a parcel\",\"text\":\"Enter its number to see where it is.\"}\n\
         {\"id\":\"c\",\"title\":\"Get a refund\",\"text\":\"The money returns to your card.\"}\n",
    );
    home.write(
        "set/queries.jsonl",
        "{\"id\":\"1\",\"text\":\"forgot my login\"}\n{\"id\":\"2\",\"text\":\"money back\"}\n",
    );
    // The second query is deliberately judged relevant to a document that does not exist.
    home.write("set/qrels.tsv", "1\ta\t1\n2\tnowhere\t1\n");
    let models = models.to_str().unwrap();
    for mode in [&["--exact"][..], &[]] {
        let result = home.json(&[&["eval", "set", "--models-dir", models], mode].concat());
        assert_eq!((&result["documents"], &result["queries"]), (&3.into(), &2.into()));
        for measure in ["ndcg_at_10", "recall_at_100", "mrr_at_10"] {
            assert_eq!(result[measure], 0.5, "{measure} in {result}");
        }
        assert!(result["seconds"].is_number());
    }
    assert!(!home.path("data").exists(), "the data directory is not touched");
    assert!(home.ok(&["eval", "set", "--models-dir", models]).contains("nDCG@10        0.5000"));
}
