//! Requests that Schemathesis generates from the OpenAPI description: valid requests, invalid requests and sequences of
//! requests. No response may be a server error or contradict the description, and invalid requests must be rejected.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;
use testing::{real_model, requirement::Requirement};

use crate::server::{Server, send};

/// Seed of the generated requests; `SCHEMATHESIS_SEED` overrides it.
const SEED: &str = "13";
/// Maximum number of random requests per route, in addition to the about two thousand requests at the bounds of
/// parameters; `SCHEMATHESIS_EXAMPLES` overrides it.
const EXAMPLES: &str = "10";
/// Number of sequences of requests.
const SEQUENCES: &str = "10";
/// The checks of every response. Not included: whether keys are required (this server has none), and whether every
/// request that matches the description is accepted (it cannot express which filters and schemas are valid).
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method,use_after_free";

/// The path of Schemathesis, which is installed if necessary; `None` if that fails.
fn schemathesis() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let directory = root.join("target/schemathesis");
    let script = root.join("tools/schemathesis.py");
    Requirement::Tools.find(|| {
        let output =
            Command::new("python3").arg(&script).arg("--into").arg(&directory).stdin(Stdio::null()).output();
        let error = match output {
            Ok(output) if output.status.success() => return Ok(directory.join("bin/schemathesis")),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Err(format!("Schemathesis cannot be installed: {} failed: {error}", script.display()))
    })
}

/// A server with the collection `kb`, which has the default schema and a few articles.
fn start(home: &Path, models: &Path) -> Server {
    // Even on a busy machine, no request times out.
    let variables = [
        ("NEARFIELD_MODELS_DIR", models.to_str().unwrap()),
        ("NEARFIELD_QUEUE_WAIT_MS", "600000"),
        ("NEARFIELD_TIMEOUT_MS", "600000"),
    ];
    let mut server = Server::start_with(home, &[], &variables);
    server.wait_until_ready();
    let (status, response) =
        send("PUT", &format!("{}/collections/kb", server.address()), &json!({})).unwrap();
    assert_eq!(status, 201, "{response}");
    let articles: Vec<_> = ["refund", "password", "router"]
        .iter()
        .map(|word| json!({"id": word, "title": word, "content": format!("information about the {word}")}))
        .collect();
    let url = format!("{}/collections/kb/documents", server.address());
    let (status, response) = send("POST", &url, &json!(articles)).unwrap();
    assert_eq!((status, &response["created"]), (200, &json!(3)), "{response}");
    server
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Runs Schemathesis on all routes, with `parameters` instead of random ones; returns its report, and whether all
/// checks passed.
fn run(program: &Path, server: &Server, home: &Path, parameters: &str, arguments: &[&str]) -> (String, bool) {
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/schemathesis_hooks.py");
    // A deadline of a millisecond would be exceeded, and the response would be 504.
    let deadline = "\"header.X-Timeout-Ms\" = \"60000\"";
    let config = format!("hooks = {hooks:?}\n[parameters]\n{deadline}\n{parameters}");
    std::fs::write(home.join("schemathesis.toml"), config).unwrap();
    let output = Command::new(program)
        .args(["run", &format!("{}/openapi.json", server.address()), "--checks", CHECKS, "--seed"])
        .arg(variable("SCHEMATHESIS_SEED", SEED))
        .args(["--generation-database", "none", "--workers", "1", "--no-color", "--request-timeout", "600"])
        .args(["--continue-on-failure", "--suppress-health-check", "all"])
        .args(arguments)
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

/// The number of requests in the summary of a report.
fn count(report: &str) -> u64 {
    let line =
        report.lines().find(|line| line.contains(" generated, ")).unwrap_or_else(|| panic!("{report}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn responses_to_generated_requests_match_the_description() {
    let Some(models) = real_model::models() else { return };
    let Some(program) = schemathesis() else { return };
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path(), &models);
    println!("seed {}", variable("SCHEMATHESIS_SEED", SEED));
    let examples = variable("SCHEMATHESIS_EXAMPLES", EXAMPLES);
    // Random names rarely exist, so the second run uses existing ones (except for the route that drops the collection).
    let existing = "c = \"kb\"\nid = \"refund\"\n";
    for (parameters, arguments) in [
        (
            "",
            ["--phases", "examples,coverage,fuzzing", "--max-examples", &examples, "--exclude-name", "none"],
        ),
        (
            existing,
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
        let (report, passed) = run(&program, &server, home.path(), parameters, &arguments);
        println!("{} generated requests ({})", count(&report), arguments[1]);
        assert!(passed, "{report}\nserver: {}/log", home.path().display());
    }
    server.stop();
}
