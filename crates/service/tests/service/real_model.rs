//! The service with the default model.

use std::path::PathBuf;

use service::{Leg, MODEL, SearchRequest, Service, article_schema};
use tempfile::TempDir;
use testing::real_model;

use crate::fixture::{self, COLLECTION, cx, ids, put};

const ARTICLES: [(&str, &str, &str); 8] = [
    (
        "password",
        "Reset your password",
        "Open the sign-in page, choose Forgot password and follow the link we mail you.",
    ),
    (
        "invoice",
        "Download an invoice",
        "Invoices of every month are listed under Billing and can be saved as PDF.",
    ),
    (
        "refund",
        "Ask for your money back",
        "Within 30 days of a purchase we return the full amount to your card.",
    ),
    ("export", "Export your data", "An administrator can download all projects and comments as CSV files."),
    (
        "mobile",
        "Install the mobile app",
        "The app is in the App Store and on Google Play; sign in with your account.",
    ),
    (
        "two-factor",
        "Turn on two-factor sign-in",
        "Scan the code with an authenticator app and enter the six digits.",
    ),
    ("webhook", "Receive webhooks", "We send an HTTP POST to your endpoint whenever a task changes."),
    (
        "delete",
        "Close your account",
        "Closing an account deletes its projects after a grace period of two weeks.",
    ),
];

const QUERIES: [(&str, &str); 8] = [
    ("I forgot my login secret and cannot get in", "password"),
    ("where do I find the bill for last month", "invoice"),
    ("I am not happy with what I bought, can I be reimbursed", "refund"),
    ("get a copy of everything we have stored in a spreadsheet", "export"),
    ("use it on my iPhone", "mobile"),
    ("protect sign in with a one-time code from my phone", "two-factor"),
    ("notify my own server about changes", "webhook"),
    ("I want to leave and have everything erased", "delete"),
];

async fn open_with_articles(dir: &TempDir, models_dir: PathBuf) -> Service {
    let mut config = fixture::config(dir.path().to_owned());
    config.models_dir = models_dir;
    let service = Service::open(config).unwrap();
    let (_, created) =
        service.put_collection(&cx(), COLLECTION, article_schema("a:", &[], &[]), false).await.unwrap();
    assert!(created);
    let puts = ARTICLES.map(|(id, title, content)| put(id, &[("title", title), ("content", content)]));
    for result in service.put(&cx(), COLLECTION, puts.into()).await.unwrap() {
        result.unwrap();
    }
    service
}

#[tokio::test]
async fn paraphrased_queries_find_their_articles() {
    let Some(models) = real_model::models() else { return };
    let dir = TempDir::new().unwrap();
    let model = models.join(MODEL);
    let service = open_with_articles(&dir, models).await;
    let searches = QUERIES.map(|(query, _)| SearchRequest::text(query, 3)).to_vec();
    let responses = service.search_many(&cx(), searches).await.unwrap();
    for ((query, id), response) in QUERIES.iter().zip(responses) {
        let response = response.unwrap();
        assert_eq!(ids(&response)[0], *id, "{query}");
        // The same search with a vector computed outside the service, by exact comparison.
        let vector = fixture::embed(&model, query);
        let exact =
            SearchRequest { legs: vec![Leg::Vector(vector)], exact: true, ..SearchRequest::text("", 3) };
        let exact = service.search(&cx(), exact).await.unwrap();
        assert_eq!(ids(&exact), ids(&response));
        for (one, other) in exact.hits.iter().zip(&response.hits) {
            assert!((one.score - other.score).abs() < 1e-5, "{query}");
        }
    }
}

#[tokio::test]
async fn reports_truncated_text() {
    let Some(models) = real_model::models() else { return };
    let dir = TempDir::new().unwrap();
    let service = open_with_articles(&dir, models).await;
    // The model reads 256 word pieces, two of them special; the limit of 128 in tokenizer.json must not apply.
    for (words, truncated) in [(200, false), (254, false), (255, true)] {
        let one = put("long", &[("content", &"word ".repeat(words))]);
        let result = service.put(&cx(), COLLECTION, vec![one]).await.unwrap().pop().unwrap().unwrap();
        assert_eq!(result.truncated, truncated, "{words} words");
    }
}
