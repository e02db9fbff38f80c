//! Names from clients are never paths: which files the process touches, as the system sees it, when names lead elsewhere.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Component, Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    ledger::vector,
    server::{Server, get, schema},
};

/// Stands in every hostile name, and nowhere else.
const MARK: &str = "elsewhere";

/// Names as they stand in an address. Some cannot be those of a collection, and some can: those are the better test.
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

/// What a process touches by itself: where it looks up its own machine and libraries.
const SYSTEM: [&str; 7] = ["/proc", "/sys", "/dev", "/lib", "/lib64", "/usr", "/etc/ld.so"];

/// A server under `strace`, which notes every call that takes the name of a file; `None` where there is none.
fn traced(home: &Path) -> Option<Server> {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("NEARFIELD_REQUIRE_TOOLS").is_none(), "strace is missing");
        println!("SKIPPED: there is no strace here");
        return None;
    }
    let trace = home.join("trace");
    let words = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "500", "-y", "-e", "trace=%file"];
    let mut server = Server::start_with(home, &[&words[..], &["-o", trace.to_str().unwrap()]].concat(), &[]);
    server.wait_until_ready();
    Some(server)
}

/// Sends a request with this very address, which no client of ours would leave as it is; its status.
fn ask(server: &Server, method: &str, target: &str, body: &Value) -> u16 {
    let mut stream = TcpStream::connect(server.address().strip_prefix("http://").unwrap()).unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = String::from_utf8_lossy(&answer);
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.unwrap_or_else(|| panic!("{method} {target}: {head}"))
}

/// Every place of a name there is, with this one in it. How many were taken, and how many refused.
fn offer(server: &Server, name: &str) -> (u32, u32) {
    let plain = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    let document = json!({"text": "a word", "version": 1, "place": vector(name, 1)});
    let listed =
        json!([{"id": plain, "text": plain, "version": 2, "place": vector(name, 2), "parity": plain}]);
    let with = |change: fn(&mut Value, &str)| {
        let mut schema = schema(16);
        change(&mut schema, &plain);
        schema
    };
    let prefixed = with(|schema, name| schema["prefixes"] = json!([name]));
    let modelled = with(|schema, name| {
        let embed = json!({"fields": ["text"], "model": name});
        let field = json!({"name": "meaning", "kind": "vector", "dim": 8, "embed": embed});
        schema["fields"].as_array_mut().unwrap().push(field);
    });
    let alias = json!({"collection": plain});
    let none = Value::Null;
    let calls: [(&str, String, &Value); 22] = [
        ("PUT", format!("/collections/{name}"), &schema(16)),
        ("PUT", format!("/collections/{name}/documents/1"), &document),
        ("PUT", format!("/collections/{name}?rebuild=true"), &schema(8)),
        ("PUT", format!("/aliases/{name}"), &json!({"collection": "notes"})),
        ("PUT", "/aliases/other".to_owned(), &alias),
        ("PUT", "/collections/prefixed".to_owned(), &prefixed),
        ("PUT", "/collections/modelled".to_owned(), &modelled),
        ("PUT", format!("/collections/notes/documents/{name}"), &document),
        ("POST", "/collections/notes/documents".to_owned(), &listed),
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
        ("DELETE", format!("/collections/{name}"), &none),
        ("DELETE", "/collections/prefixed".to_owned(), &none),
    ];
    let (mut taken, mut refused) = (0, 0);
    for (method, target, body) in calls {
        let status = ask(server, method, &target, body);
        // The model of that name is missing.
        let is_missing = status == 503 && target == "/collections/modelled";
        assert!(status < 500 || is_missing, "{method} {target}: {status}");
        *if status < 300 { &mut taken } else { &mut refused } += 1;
    }
    (taken, refused)
}

/// The files a line of the trace names: what stands in its strings, from the directory it is said to be relative to.
fn files(line: &str, cwd: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut base = cwd.to_owned();
    let mut parts = line.split('"');
    while let (Some(before), Some(name)) = (parts.next(), parts.next()) {
        // A descriptor and what it stands for, which -y tells.
        if let Some((_, told)) = before.rsplit_once('<')
            && let Some((directory, _)) = told.split_once('>')
            && directory.starts_with('/')
        {
            base = directory.into();
        }
        files.push(base.join(name));
    }
    files
}

#[test]
fn names_that_lead_elsewhere_touch_no_file_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut server) = traced(home.path()) else { return };
    let trace = home.path().join("trace");
    server.make_collection();
    let at_first = fs::read_to_string(&trace).unwrap().len();
    let (mut taken, mut refused) = (0, 0);
    for name in NAMES {
        let counts = offer(&server, name);
        (taken, refused) = (taken + counts.0, refused + counts.1);
    }
    // What was taken gets its snapshot when the server stops.
    for name in ["..elsewhere..", "C:elsewhere"] {
        assert_eq!(ask(&server, "PUT", &format!("/collections/{name}"), &schema(16)), 201, "{name}");
    }
    let listed = get(&format!("{}/collections", server.address())).unwrap().1.to_string();
    assert!(!listed.contains("\"..\"") && !listed.contains("\".\""), "{listed}");
    server.stop();

    let told = fs::read_to_string(&trace).unwrap();
    let cwd = std::env::current_dir().unwrap();
    let own = home.path().canonicalize().unwrap();
    let mut touched = 0;
    for line in told[at_first..].lines() {
        for file in files(line, &cwd) {
            touched += 1;
            let is_own = ["data", "models"].iter().any(|part| file.starts_with(own.join(part)));
            let is_system = SYSTEM.iter().any(|part| file.to_str().unwrap().starts_with(part));
            assert!(is_own || is_system, "outside: {line}");
            assert!(!file.components().any(|part| part == Component::ParentDir), "upwards: {line}");
            // A model's name is that of its directory; no other name is one of a file.
            let is_named = file.to_str().unwrap().contains(MARK) && !file.starts_with(own.join("models"));
            assert!(!is_named, "by a client's name: {line}");
        }
    }
    println!("{taken} requests done, {refused} refused; {touched} names of files, none outside");
    assert!(taken > 40 && refused > 100, "{taken} taken, {refused} refused");
    assert!(touched > 10, "the trace holds {touched} names: nothing was watched");
}
