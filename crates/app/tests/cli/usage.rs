//! Help, exit codes, and which output goes to which stream.

use std::{
    io::Read as _,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{
    fake_server::{FakeServer, Response},
    program::TestHome,
};

#[test]
fn prints_help_and_version_to_standard_output() {
    let home = TestHome::new();
    let help = home.ok(&["--help"]);
    for word in ["index", "search", "serve", "demo", "eval", "model", "Exit codes", "130"] {
        assert!(help.contains(word), "{word}");
    }
    assert_eq!(home.ok(&["-V"]), format!("nearfield {}\n", env!("CARGO_PKG_VERSION")));
    for command in [
        "index",
        "search",
        "get",
        "delete",
        "export",
        "copy",
        "model pull",
        "eval",
        "serve",
        "demo",
        "completions",
        "healthcheck",
        "man",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = home.ok(&arguments);
        assert!(help.contains("Example"), "{command} --help shows no example");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    let home = TestHome::new();
    home.fails(2, &[], &["Usage"]);
    home.fails(2, &["frobnicate"], &["frobnicate"]);
    home.fails(2, &["index"], &["FILE"]);
    home.fails(2, &["index", "x.csv", "--batch-size", "0"], &["--batch-size"]);
    home.fails(2, &["index", "x.csv", "--batch-size", "5001"], &["5000"]);
    home.fails(2, &["index", "x.csv", "--ttl", "soon"], &["such as 90s"]);
    home.fails(2, &["index", "x.csv", "--delimiter", "ab"], &["one ASCII character"]);
    home.fails(2, &["delete"], &["ID"]);
    home.fails(2, &["delete", "a", "--filter", "*"], &["--filter"]);
    home.fails(2, &["delete", "--filter", "*"], &["--yes"]);
    home.fails(2, &["stats", "--url", "localhost:8000"], &["http://HOST:PORT"]);
    home.fails(2, &["stats", "--workers", "0"], &["workers must be"]);
    home.fails(2, &["copy"], &["--from", "--to"]);
    home.fails(2, &["serve", "--port", "1", "--listen", "127.0.0.1:2"], &["--listen"]);
}

#[test]
fn settings_out_of_range_exit_with_2() {
    let home = TestHome::new();
    home.fails(2, &["serve", "--queue-max", "0"], &["--queue-max: queue_max", "from 1 to 1000000"]);
    home.fails(2, &["serve", "--grace-s", "3601"], &["--grace-s: grace_s", "from 0 to 3600"]);
    home.fails(2, &["serve", "--port", "65536"], &["--port", "65535"]);
    home.fails(2, &["serve", "--queue", "1"], &["--queue"]);
    for (name, value, words) in [
        (
            "NEARFIELD_HEADER_TIMEOUT_MS",
            "600001",
            "header_timeout_ms must be a whole number from 1 to 600000",
        ),
        ("NEARFIELD_LOG", "inof", "log must be levels"),
        ("NEARFIELD_LISTEN", "8000", "listen must be an IP address and a port"),
    ] {
        let output = home.command(&["serve"]).env(name, value).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(name) && err.contains(words), "{err}");
    }
    for (text, words) in [
        ("workers = 0", "line 1: workers must be a whole number from 1 to 1024"),
        ("\ntail_max = \"many\"", "line 2: tail_max must be a whole number from 1 to 10000000"),
        ("wrokers = 1", "\"wrokers\""),
        ("workers =", "line 1"),
    ] {
        home.write("nearfield.toml", text);
        home.fails(2, &["serve"], &["nearfield.toml", words]);
    }
}

#[test]
fn an_unreachable_server_exits_with_4() {
    let home = TestHome::new();
    home.fails(4, &["stats", "--url", "http://127.0.0.1:1"], &["http://127.0.0.1:1"]);
}

#[test]
fn maps_server_errors_to_exit_codes() {
    let home = TestHome::new();
    let server = FakeServer::start(|request| match request.path.as_str() {
        "/stats" => Response::problem(401, "unauthorized", "an API key is needed"),
        "/collections/kb" => Response::json(200, r#"{"name":"kb","schema":{"fields":[]}}"#),
        "/collections/kb/documents/a%2Fb" => {
            Response::problem(404, "document-not-found", "there is no document")
        }
        "/collections" => Response { status: 200, headers: vec![], body: "<html>".into() },
        _ => Response::problem(422, "filter", "expected ]"),
    });
    let url = server.url();
    home.fails(2, &["stats", "--url", &url], &["an API key is needed", "NEARFIELD_API_KEY"]);
    home.fails(3, &["get", "a/b", "-c", "kb", "--url", &url], &["there is no document"]);
    home.fails(1, &["search", "x", "--filter", "@y:[", "--url", &url], &["expected ]"]);
    home.fails(1, &["collections", "--url", &url], &["not from a Nearfield server"]);
}

#[test]
fn sends_the_api_key_without_showing_it() {
    let home = TestHome::new();
    let server = FakeServer::start(|request| {
        let key = request.header("authorization").unwrap_or_default();
        Response::json(200, &format!("{{\"documents\":{}}}", key.len()))
    });
    let key = "correct-horse-battery";
    let mut command = home.command(&["stats", "--json", "--url", &server.url()]);
    let output = command.env("NEARFIELD_API_KEY", key).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("{{\"documents\":{}}}\n", "Bearer ".len() + key.len()));
    for help in [home.ok(&["stats", "--help"]), home.fails(2, &["stats", "--api-key"], &[]).err] {
        assert!(!help.contains(key));
    }
}

#[test]
fn uses_colours_only_on_terminals() {
    let home = TestHome::new();
    let output = home.fails(4, &["stats", "--url", "http://127.0.0.1:1"], &[]);
    assert!(!output.err.contains('\u{1b}'), "{output:?}");
    let output = home.fails(4, &["stats", "--url", "http://127.0.0.1:1", "--color", "always"], &[]);
    assert!(output.err.contains('\u{1b}'), "{output:?}");
}

#[test]
fn writes_a_manual_page_per_command() {
    let home = TestHome::new();
    home.ok(&["man", home.path("man").to_str().unwrap()]);
    for page in ["nearfield.1", "nearfield-index.1", "nearfield-model-pull.1"] {
        assert!(home.read(&format!("man/{page}")).contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn prints_completion_scripts_and_tolerates_a_closed_pipe() {
    let home = TestHome::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(home.ok(&["completions", shell]).contains("nearfield"), "{shell}");
    }
    let mut child =
        home.command(&["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The output exceeds the pipe's buffer, so the program notices that the pipe is closed.
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_deletion_by_filter_continues_after_the_time_limit_of_a_request() {
    let requests = AtomicUsize::new(0);
    let server = FakeServer::start(move |request| match request.path.as_str() {
        "/collections/articles/delete" => match requests.fetch_add(1, Relaxed) {
            0 | 1 => Response::json(504, r#"{"code":"deadline","detail":"too late","deleted":1000}"#),
            2 => Response::json(200, r#"{"deleted":5}"#),
            3 => Response::json(504, r#"{"code":"deadline","detail":"too late","deleted":7}"#),
            _ => Response::json(504, r#"{"code":"deadline","detail":"too late"}"#),
        },
        _ => Response::json(200, r#"{"name":"articles","schema":{"fields":[]}}"#),
    });
    let home = TestHome::new();
    let url = server.url();
    let args = ["delete", "--filter", "*", "--yes", "-c", "articles", "--url", &url];
    let output = home.run(&args);
    assert_eq!((output.code, &*output.out), (Some(0), "deleted 2,005\n"), "{output:?}");
    assert!(output.err.contains("deleted 2,000 documents so far"), "{output:?}");
    // No progress any more.
    home.fails(4, &args, &["deleted 7 documents", "too late"]);
}
