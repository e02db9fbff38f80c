//! Path traversal: names sent by clients never become file paths, as the system calls of the server show.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Component, Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    ledger::vector,
    server::{Server, get, schema},
    tools::start_with_strace,
};

/// Part of most hostile names, and of no other path.
const MARKER: &str = "elsewhere";

/// Hostile names as in a URL, some of which are valid names of collections.
const NAMES: [&str; 20] = [
    "..",
    ".",
    "...",
    "%2e%2e",
    "%2e%2e%2felsewhere",
    "..%2f..%2f..%2felsewhere",
    "..%5c..%5celsewhere",
    "%252e%252e%252felsewhere",
    "elsewhere%00",
    "elsewhere%00.snapshot",
    "%2felsewhere",
    "%2fetc%2felsewhere",
    "C%3a%5celsewhere",
    "C:elsewhere",
    "%5c%5chost%5celsewhere",
    "file:%2f%2f%2felsewhere",
    "%ef%bc%8e%ef%bc%8e%2felsewhere",
    "%e2%80%a5%2felsewhere",
    "%c0%ae%c0%ae%2felsewhere",
    "..elsewhere..",
];

/// Paths that any process accesses.
const SYSTEM_PATHS: [&str; 7] = ["/proc", "/sys", "/dev", "/lib", "/lib64", "/usr", "/etc/ld.so"];

/// Sends a request with exactly this target, which an HTTP client would normalise; returns the status.
fn send_raw(server: &Server, method: &str, target: &str, body: &Value) -> u16 {
    let mut stream = TcpStream::connect(server.address().strip_prefix("http://").unwrap()).unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    let head = String::from_utf8_lossy(&response);
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.unwrap_or_else(|| panic!("{method} {target}: {head}"))
}

/// Sends requests with this name everywhere a request can contain one; returns the numbers of accepted and rejected
/// requests.
fn send_name_everywhere(server: &Server, name: &str) -> (u32, u32) {
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    let document = json!({"text": "a word", "version": 1, "place": vector(name, 1)});
    let batch =
        json!([{"id": decoded, "text": decoded, "version": 2, "place": vector(name, 2), "parity": decoded}]);
    let mut with_prefix = schema(16);
    with_prefix["prefixes"] = json!([decoded]);
    let mut with_model = schema(16);
    let embed = json!({"fields": ["text"], "model": decoded});
    let field = json!({"name": "embedding", "kind": "vector", "dim": 8, "embed": embed});
    with_model["fields"].as_array_mut().unwrap().push(field);
    let alias = json!({"collection": decoded});
    let none = Value::Null;
    let requests: [(&str, String, &Value); 22] = [
        ("PUT", format!("/collections/{name}"), &schema(16)),
        ("PUT", format!("/collections/{name}/documents/1"), &document),
        ("PUT", format!("/collections/{name}?rebuild=true"), &schema(8)),
        ("PUT", format!("/aliases/{name}"), &json!({"collection": "notes"})),
        ("PUT", "/aliases/other".to_owned(), &alias),
        ("PUT", "/collections/with-prefix".to_owned(), &with_prefix),
        ("PUT", "/collections/with-model".to_owned(), &with_model),
        ("PUT", format!("/collections/notes/documents/{name}"), &document),
        ("POST", "/collections/notes/documents".to_owned(), &batch),
        ("GET", format!("/collections/notes/documents/{name}"), &none),
        ("GET", format!("/collections/notes/documents?after={name}"), &none),
        ("GET", format!("/collections/{name}"), &none),
        ("GET", format!("/collections/{name}/documents"), &none),
        ("GET", format!("/collections/{name}/count?filter={name}"), &none),
        ("GET", format!("/search?q=word&collection={name}"), &none),
        ("GET", format!("/{name}"), &none),
        ("GET", format!("/{name}/app.js"), &none),
        ("GET", format!("/backup/{name}"), &none),
        ("DELETE", format!("/collections/notes/documents/{name}"), &none),
        ("DELETE", format!("/aliases/{name}"), &none),
        ("DELETE", format!("/collections/{name}?documents=keep"), &none),
        ("DELETE", "/collections/with-prefix?documents=keep".to_owned(), &none),
    ];
    let (mut accepted, mut rejected) = (0, 0);
    for (method, target, body) in requests {
        let status = send_raw(server, method, &target, body);
        // There is no model of this name.
        let is_missing_model = status == 503 && target == "/collections/with-model";
        assert!(status < 500 || is_missing_model, "{method} {target}: {status}");
        *if status < 300 { &mut accepted } else { &mut rejected } += 1;
    }
    (accepted, rejected)
}

/// The paths in a line of the trace, made absolute.
fn paths(line: &str, cwd: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut base = cwd.to_owned();
    let mut parts = line.split('"');
    while let (Some(before), Some(name)) = (parts.next(), parts.next()) {
        // With -y, strace prints a file descriptor with its path: 5</directory>.
        if let Some((_, rest)) = before.rsplit_once('<')
            && let Some((directory, _)) = rest.split_once('>')
            && directory.starts_with('/')
        {
            base = directory.into();
        }
        paths.push(base.join(name));
    }
    paths
}

#[test]
fn names_with_path_traversal_access_no_other_files() {
    let home = tempfile::tempdir().unwrap();
    let options = ["-s", "500", "-y", "-e", "trace=%file"];
    let Some(mut server) = start_with_strace(home.path(), &options, &[]) else { return };
    let trace = home.path().join("trace");
    server.create_collection();
    let start = fs::read_to_string(&trace).unwrap().len();
    let (mut accepted, mut rejected) = (0, 0);
    for name in NAMES {
        let counts = send_name_everywhere(&server, name);
        (accepted, rejected) = (accepted + counts.0, rejected + counts.1);
    }
    // The server writes snapshots of these collections when it stops.
    for name in ["..elsewhere..", "C:elsewhere"] {
        assert_eq!(send_raw(&server, "PUT", &format!("/collections/{name}"), &schema(16)), 201, "{name}");
    }
    let list = get(&format!("{}/collections", server.address())).unwrap().1.to_string();
    assert!(!list.contains("\"..\"") && !list.contains("\".\""), "{list}");
    server.stop();

    let calls = fs::read_to_string(&trace).unwrap();
    let cwd = std::env::current_dir().unwrap();
    let home_path = home.path().canonicalize().unwrap();
    let mut accessed = 0;
    for line in calls[start..].lines() {
        for path in paths(line, &cwd) {
            accessed += 1;
            let is_own = ["data", "models"].iter().any(|part| path.starts_with(home_path.join(part)));
            let is_system = SYSTEM_PATHS.iter().any(|part| path.to_str().unwrap().starts_with(part));
            assert!(is_own || is_system, "outside the home directory: {line}");
            assert!(!path.components().any(|part| part == Component::ParentDir), "parent directory: {line}");
            // The only name that is part of a path is that of a model.
            let is_in_models = path.starts_with(home_path.join("models"));
            assert!(is_in_models || !path.to_str().unwrap().contains(MARKER), "a client's name: {line}");
        }
    }
    println!(
        "{accepted} requests accepted, {rejected} rejected; {accessed} paths, none outside the home directory"
    );
    assert!(accepted > 40 && rejected > 100, "{accepted} accepted, {rejected} rejected");
    assert!(accessed > 10, "the trace contains only {accessed} paths");
}
