//! The page in a real browser, over documents that try to run in it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::json;
use testing::tiny_model;

use crate::server::{Server, send, send_as};

/// The browser, under one of its names; `None` where it is not installed.
fn browser() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|told| told.status.success()));
    if found.is_none() {
        assert!(std::env::var_os("NEARFIELD_REQUIRE_TOOLS").is_none(), "chromium is missing");
        println!("SKIPPED: there is no chromium here");
    }
    found
}

/// Where everything a document could make the browser ask for ends up.
struct Trap {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Trap {
    /// Answers every request with this page, and remembers it.
    fn set(page: impl Fn(SocketAddr) -> String) -> Trap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (page, asked) = (page(address), Arc::new(Mutex::new(Vec::new())));
        let noted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, page, noted) = (stream.unwrap(), page.clone(), noted.clone());
                std::thread::spawn(move || {
                    if let Some(line) = request_line(&mut stream) {
                        noted.lock().unwrap().push(line);
                        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
                        let _ = write!(stream, "{head}content-length: {}\r\n\r\n{page}", page.len());
                    }
                });
            }
        });
        Trap { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn request_line(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).lines().next().map(str::to_owned)
}

/// What would run, or ask for something, if it became markup.
fn hostile(trap: SocketAddr) -> Vec<String> {
    let run = "document.title='ran'";
    let there = format!("http://elsewhere.example:{}", trap.port());
    vec![
        format!("<script>{run};fetch('{there}/script')</script>"),
        format!("<img src={there}/image onerror=\"{run}\">"),
        format!("<img src=x onerror=\"{run};fetch('{there}/onerror')\">"),
        format!("<svg onload=\"{run}\"><use href=\"{there}/use\"/></svg>"),
        format!("<iframe src=\"{there}/frame\" srcdoc=\"<script>parent.{run}</script>\"></iframe>"),
        format!("<a href=\"javascript:{run}\">apple</a> javascript:{run}"),
        format!("<link rel=stylesheet href={there}/style><style>@import '{there}/import'</style>"),
        format!("</p></li></ol></main><script src={there}/late></script><base href={there}/>"),
        format!("<meta http-equiv=refresh content=\"0;url={there}/refresh\">"),
        format!(
            "<form id=form action={there}/form><button autofocus onfocus=\"{run}\">apple</button></form>"
        ),
        format!("</mark><details open ontoggle=\"{run}\">apple</details><!-- apple"),
        "${document.title='ran'} {{constructor.constructor('document.title=1')()}} apple \u{202e}".to_owned(),
    ]
}

/// The document as it stands when all has been loaded and run.
fn dumped(browser: &str, profile: &Path, url: &str) -> String {
    let seen = Command::new("timeout")
        .args(["300", browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--no-proxy-server", "--virtual-time-budget=20000", "--dump-dom"])
        // Every other host is this one, so that nothing asked for elsewhere is asked in vain.
        .arg("--host-resolver-rules=MAP * 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .output()
        .unwrap();
    assert!(seen.status.success(), "{}: {}", seen.status, String::from_utf8_lossy(&seen.stderr));
    String::from_utf8(seen.stdout).unwrap()
}

#[test]
fn nothing_in_documents_or_questions_runs_in_the_page() {
    let Some(browser) = browser() else { return };
    let (home, profile) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

    // The same texts as markup, on a page that lets them: the browser runs them, and asks for what they name.
    let control = Trap::set(|trap| {
        format!("<!doctype html><title>still</title><body>{}</body>", hostile(trap)[..3].concat())
    });
    let seen = dumped(browser, profile.path(), &format!("http://{}/", control.address));
    assert!(seen.contains("<title>ran</title>"), "{seen}");
    for wanted in ["/script", "/image", "/onerror"] {
        let asked = control.asked();
        assert!(asked.iter().any(|line| line.contains(wanted)), "{wanted} is not in {asked:?}");
    }

    let trap = Trap::set(|_| String::new());
    tiny_model::write(&home.path().join("models/tiny"), 1);
    let mut server = Server::start(home.path());
    server.wait_until_ready();
    let schema = json!({"fields": [
        {"name": "title", "kind": "text"},
        {"name": "content", "kind": "text"},
        {"name": "embedding", "kind": "vector", "embed": {"fields": ["title", "content"], "model": "tiny"}},
    ]});
    let kb = format!("{}/collections/kb", server.address());
    let (status, answer) = send("PUT", &kb, &schema).unwrap();
    assert_eq!(status, 201, "{answer}");
    let texts = hostile(trap.address);
    // Every text is title, content and id once; the page shows ten.
    for part in texts.chunks(6) {
        for text in part {
            let document =
                json!([{"id": text, "title": format!("apple {text}"), "content": format!("{text} apple")}]);
            let body = document.to_string();
            let (status, answer) =
                send_as("POST", &format!("{kb}/documents"), "application/json", body).unwrap();
            assert!(status == 200 && answer["created"] == 1, "{text}: {answer}");
        }
        let questions = [
            "apple",
            "<script>document.title='ran'</script> apple",
            "\"><img src=x onerror=document.title='ran'>",
        ];
        for question in questions {
            let asked = form_urlencoded::byte_serialize(question.as_bytes()).collect::<String>();
            let seen = dumped(browser, profile.path(), &format!("{}/?q={asked}", server.address()));
            assert!(seen.contains("<title>Nearfield</title>"), "a script ran: {seen}");
            assert_eq!(seen.matches("<h2>").count(), part.len(), "not every document is shown: {seen}");
            assert_eq!(seen.matches("<script").count(), 1, "{seen}");
            assert!(seen.contains("<script src=\"/app.js\""), "{seen}");
            for injected in
                ["<img", "<svg", "<iframe", "<a ", "<style", "<base", "<form id=\"form\" action", "<details"]
            {
                assert!(!seen.contains(injected), "{injected} became markup: {seen}");
            }
            // It is there, as text.
            assert!(seen.contains("&lt;"), "{seen}");
        }
        for text in part {
            let id = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            assert_eq!(send("DELETE", &format!("{kb}/documents/{id}"), &json!(null)).unwrap().0, 204);
        }
    }
    assert_eq!(trap.asked(), Vec::<String>::new(), "the page asked for something elsewhere");
    server.kill();
}
