//! `nearfield copy`.

use std::fs;

use serde_json::{Value, json};
use testing::{
    real_model,
    redis_stack::{RedisOptions, RedisStack},
};

use crate::program::TestHome;

/// The lines of an export, sorted.
fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn copies_a_collection_to_redis_and_back() {
    let secret = "correct-horse";
    let Some(redis) = RedisStack::start(RedisOptions { password: Some(secret), ..RedisOptions::default() })
    else {
        return;
    };
    let Some(models) = real_model::models() else { return };
    let models = models.to_str().unwrap();
    let home = TestHome::new();
    let file = home.write(
        "articles.csv",
        "id,title,content\n1,Reset your password,Choose forgot password\n2,Invoices,Download your invoice as PDF\n\
         3,Delete an account,All data goes\n",
    );
    home.ok(&["index", &file, "--models-dir", models]);
    let before = sorted_lines(&home.ok(&["export"]));
    let url = redis.url();

    // Without the model, since vectors are copied.
    let out = home.ok(&["copy", "--from", "directory", "--to", &url]);
    let (copied, comparison) = out.split_once('\n').unwrap();
    assert_eq!(copied, "documents 3 = written 3 + unchanged 0 + rejected 0 + expired 0");
    let prefix = "compared 3 = equal 3 + missing 0 + different 0, sha256 sum ";
    let sum = comparison.strip_prefix(prefix).unwrap_or_else(|| panic!("{comparison}")).trim_end();
    assert_eq!(sum.len(), 32);
    assert_eq!(sorted_lines(&home.ok(&["export", "--store", &url])), before);
    let again = home.json(&["copy", "--from", "directory", "--to", &url]);
    assert_eq!(
        (&again["unchanged"], &again["equal"], &again["sha256_sum"]),
        (&json!(3), &json!(true), &json!(sum))
    );
    let collections = json!([{"name": "articles", "documents": 3, "documents_in_target": 3}]);
    assert_eq!(again["collections"], collections);

    let mut command = home.command(&["copy", "--to", "./back", "-c", "articles"]);
    let run = command.env("NEARFIELD_COPY_FROM", &url).output().unwrap();
    let report = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{report}");
    assert!(report.contains("quantization int8") && !report.contains(secret), "{report}");
    assert_eq!(sorted_lines(&home.ok(&["export", "--data-dir", "back"])), before);
    let found = home.json(&["search", "I forgot my password", "--data-dir", "back", "--models-dir", models]);
    assert_eq!(found["results"][0]["id"], "1", "{found}");
}

#[test]
fn lists_documents_that_were_not_copied_and_fails() {
    let Some(redis) = RedisStack::plain() else { return };
    let Some(models) = real_model::models() else { return };
    let home = TestHome::new();
    let file = home.write("articles.csv", "id,title,content\n1,Reset your password,Choose forgot password\n");
    home.ok(&["index", &file, "--models-dir", models.to_str().unwrap(), "--store", &redis.url()]);
    redis.command(&["HSET", "articles:bare\u{1b}[31m", "title", "written by another client"]);
    let args = ["copy", "--from", &redis.url(), "--to", "./back", "--rejects", "rejects.jsonl"];
    let output =
        home.fails(1, &args, &["1 documents were rejected", "articles:bare", "has not been computed"]);
    assert!(!output.err.contains('\u{1b}'), "{output:?}");
    assert!(output.out.contains("written 1 + unchanged 0 + rejected 1"), "{output:?}");
    let rejects = home.read("rejects.jsonl");
    let rejects: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rejects.len(), 2, "once rejected, once missing in the comparison: {rejects:?}");
    assert_eq!(rejects[0]["key"], "articles:bare\u{1b}[31m");
    assert_eq!(rejects[0]["collection"], "articles");
}

#[test]
fn rejects_invalid_copies() {
    let home = TestHome::new();
    let secret = "correct-horse";
    home.fails(2, &["copy", "--from", "directory"], &["--to"]);
    home.fails(2, &["copy", "--from", "directory", "--to", "./x", "--store", "directory"], &["--store"]);
    let url = format!("postgres://ada:{secret}@127.0.0.1/0");
    let output = home.fails(2, &["copy", "--from", "directory", "--to", &url], &["--to", "postgres://..."]);
    assert!(!output.err.contains(secret), "{output:?}");
    home.fails(2, &["copy", "--from", "data", "--to", "./x"], &["--from", "directory"]);
    home.fails(3, &["copy", "--from", "./nowhere", "--to", "./x"], &["nowhere"]);
    assert!(!home.path("x").exists(), "nothing is created");
    fs::create_dir(home.path("data")).unwrap();
    home.fails(1, &["copy", "--from", "directory", "--to", "./data"], &["same store"]);
    let Some(redis) = RedisStack::reserve(RedisOptions::default()) else { return };
    home.fails(4, &["copy", "--from", "directory", "--to", &redis.url()], &[&redis.port().to_string()]);
    home.fails(3, &["copy", "--from", "directory", "--to", "./x", "-c", "kb"], &["\"kb\""]);
    let out = home.ok(&["copy", "--from", "directory", "--to", "./x"]);
    assert!(out.starts_with("documents 0 = "), "{out}");
}
