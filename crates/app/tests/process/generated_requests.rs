//! Requests that Schemathesis makes out of the server's own description: valid ones, wrong ones, sequences of them.
//! No answer may be a fault of the server's, none other than the description says, none to what breaks it a success.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;
use testing::real_model;

use crate::server::{Server, send};

/// Of everything that is drawn; another one by `SCHEMATHESIS_SEED`.
const SEED: &str = "13";
/// Requests that are drawn for each route, at most; those that are not drawn, but made of every bound there is, are
/// two thousand. More by
/// `SCHEMATHESIS_EXAMPLES`.
const EXAMPLES: &str = "10";
/// Sequences of requests.
const SEQUENCES: &str = "10";
/// What is looked at in every answer. Left out: whether keys are needed (this server has none), and whether what the
/// description allows is taken (it cannot say what a filter or a schema has to make sense).
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method,use_after_free";

/// The program, installed if need be; `None`, said loudly, where it cannot be.
fn schemathesis() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let place = root.join("target/schemathesis");
    let script = root.join("tools/schemathesis.py");
    let done = Command::new("python3").arg(&script).arg("--into").arg(&place).stdin(Stdio::null()).output();
    let why = match done {
        Ok(done) if done.status.success() => return Some(place.join("bin/schemathesis")),
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let words = format!("no Schemathesis: {} failed: {why}", script.display());
    assert!(std::env::var_os("NEARFIELD_REQUIRE_TOOLS").is_none(), "{words}");
    println!("SKIPPED: {words}");
    None
}

/// A server with the articles' collection and a few articles in it.
fn start(home: &Path, models: &Path) -> Server {
    // However busy the machine is: nothing is refused for want of time.
    let variables = [
        ("NEARFIELD_MODELS_DIR", models.to_str().unwrap()),
        ("NEARFIELD_QUEUE_WAIT_MS", "600000"),
        ("NEARFIELD_TIMEOUT_MS", "600000"),
    ];
    let mut server = Server::start_with(home, &[], &variables);
    server.wait_until_ready();
    let (status, answer) = send("PUT", &format!("{}/collections/kb", server.address()), &json!({})).unwrap();
    assert_eq!(status, 201, "{answer}");
    let articles: Vec<_> = ["refund", "password", "router"]
        .iter()
        .map(|word| json!({"id": word, "title": word, "content": format!("all about the {word}")}))
        .collect();
    let url = format!("{}/collections/kb/documents", server.address());
    let (status, answer) = send("POST", &url, &json!(articles)).unwrap();
    assert_eq!((status, &answer["created"]), (200, &json!(3)), "{answer}");
    server
}

fn variable(name: &str, or: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| or.to_owned())
}

/// Runs Schemathesis over the routes, with `parameters` in place of drawn ones; what it says, and whether it found
/// nothing.
fn run(program: &Path, server: &Server, home: &Path, parameters: &str, arguments: &[&str]) -> (String, bool) {
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/schemathesis_hooks.py");
    // A deadline of a millisecond is answered with 504, as it should.
    let deadline = "\"header.X-Timeout-Ms\" = \"60000\"";
    let config = format!("hooks = {hooks:?}\n[parameters]\n{deadline}\n{parameters}");
    std::fs::write(home.join("schemathesis.toml"), config).unwrap();
    let done = Command::new(program)
        .args(["run", &format!("{}/openapi.json", server.address()), "--checks", CHECKS, "--seed"])
        .arg(variable("SCHEMATHESIS_SEED", SEED))
        .args(["--generation-database", "none", "--workers", "1", "--no-color", "--request-timeout", "600"])
        .args(["--continue-on-failure", "--suppress-health-check", "all"])
        .args(arguments)
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (String::from_utf8_lossy(&done.stdout).into_owned(), done.status.success())
}

/// The line of its summary that tells how many requests were made.
fn count(report: &str) -> u64 {
    let line =
        report.lines().find(|line| line.contains(" generated, ")).unwrap_or_else(|| panic!("{report}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn no_request_made_of_the_description_is_answered_otherwise_than_it_says() {
    let Some(models) = real_model::models() else { return };
    let Some(program) = schemathesis() else { return };
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path(), &models);
    println!("seed {}", variable("SCHEMATHESIS_SEED", SEED));
    let examples = variable("SCHEMATHESIS_EXAMPLES", EXAMPLES);
    // Names that are drawn exist seldom: once with any, once with those of what is there (but for the route that
    // would drop it).
    let there = "c = \"kb\"\nid = \"refund\"\n";
    for (parameters, arguments) in [
        (
            "",
            ["--phases", "examples,coverage,fuzzing", "--max-examples", &examples, "--exclude-name", "none"],
        ),
        (
            there,
            [
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                &examples,
                "--exclude-name",
                "DELETE /collections/{c}",
            ],
        ),
        ("", ["--phases", "stateful", "--max-examples", SEQUENCES, "--exclude-name", "none"]),
    ] {
        let (report, is_good) = run(&program, &server, home.path(), parameters, &arguments);
        println!("{} requests made of the description ({})", count(&report), arguments[1]);
        assert!(is_good, "{report}\nserver: {}/log", home.path().display());
    }
    server.stop();
}
