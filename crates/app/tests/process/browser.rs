//! Cross-site scripting: the search page in a real browser, showing documents that contain scripts and markup.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::json;
use testing::tiny_model;

use crate::{
    server::{Server, send, send_as},
    tools::find_program,
};

/// A server that records all requests. Everything that a document could make the browser request is on this server.
struct RecordingServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl RecordingServer {
    /// Responds to every request with the page that `page` returns for the server's address.
    fn start(page: impl Fn(SocketAddr) -> String) -> RecordingServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (page, requests) = (page(address), Arc::new(Mutex::new(Vec::new())));
        let recorded = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, page, recorded) = (stream.unwrap(), page.clone(), recorded.clone());
                std::thread::spawn(move || {
                    if let Some(line) = request_line(&mut stream) {
                        recorded.lock().unwrap().push(line);
                        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
                        let _ = write!(stream, "{head}content-length: {}\r\n\r\n{page}", page.len());
                    }
                });
            }
        });
        RecordingServer { address, requests }
    }

    /// The request lines so far.
    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
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

/// Texts that would run a script or send a request to `address` if they were interpreted as markup.
fn hostile_texts(address: SocketAddr) -> Vec<String> {
    let run = "document.title='ran'";
    let url = format!("http://elsewhere.example:{}", address.port());
    vec![
        format!("<script>{run};fetch('{url}/script')</script>"),
        format!("<img src={url}/image onerror=\"{run}\">"),
        format!("<img src=x onerror=\"{run};fetch('{url}/onerror')\">"),
        format!("<svg onload=\"{run}\"><use href=\"{url}/use\"/></svg>"),
        format!("<iframe src=\"{url}/frame\" srcdoc=\"<script>parent.{run}</script>\"></iframe>"),
        format!("<a href=\"javascript:{run}\">apple</a> javascript:{run}"),
        format!("<link rel=stylesheet href={url}/style><style>@import '{url}/import'</style>"),
        format!("</p></li></ol></main><script src={url}/late></script><base href={url}/>"),
        format!("<meta http-equiv=refresh content=\"0;url={url}/refresh\">"),
        format!("<form id=form action={url}/form><button autofocus onfocus=\"{run}\">apple</button></form>"),
        format!("</mark><details open ontoggle=\"{run}\">apple</details><!-- apple"),
        "${document.title='ran'} {{constructor.constructor('document.title=1')()}} apple \u{202e}".to_owned(),
    ]
}

/// The DOM of a page after everything has been loaded and run.
fn dump_dom(browser: &str, profile: &Path, url: &str) -> String {
    let output = Command::new("timeout")
        .args(["300", browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--no-proxy-server", "--virtual-time-budget=20000", "--dump-dom"])
        // Resolves every host name to this machine, so that requests to other hosts are recorded.
        .arg("--host-resolver-rules=MAP * 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn scripts_in_documents_and_queries_do_not_run_in_the_page() {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = find_program(&browsers, "--version") else { return };
    let (home, profile) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

    // Control: on a page that contains the texts as markup, the browser runs the scripts and sends the requests.
    let control = RecordingServer::start(|address| {
        format!("<!doctype html><title>still</title><body>{}</body>", hostile_texts(address)[..3].concat())
    });
    let dom = dump_dom(browser, profile.path(), &format!("http://{}/", control.address));
    assert!(dom.contains("<title>ran</title>"), "{dom}");
    for path in ["/script", "/image", "/onerror"] {
        let requests = control.requests();
        assert!(requests.iter().any(|line| line.contains(path)), "{path} is not in {requests:?}");
    }

    let other = RecordingServer::start(|_| String::new());
    tiny_model::write(&home.path().join("models/tiny"), 1);
    let mut server = Server::start(home.path());
    server.wait_until_ready();
    let schema = json!({"fields": [
        {"name": "title", "kind": "text"},
        {"name": "content", "kind": "text"},
        {"name": "embedding", "kind": "vector", "embed": {"fields": ["title", "content"], "model": "tiny"}},
    ]});
    let kb = format!("{}/collections/kb", server.address());
    let (status, response) = send("PUT", &kb, &schema).unwrap();
    assert_eq!(status, 201, "{response}");
    let texts = hostile_texts(other.address);
    // Each text occurs in the id, the title and the content of a document. In chunks, because a page shows ten hits.
    for chunk in texts.chunks(6) {
        for text in chunk {
            let document =
                json!([{"id": text, "title": format!("apple {text}"), "content": format!("{text} apple")}]);
            let body = document.to_string();
            let (status, response) =
                send_as("POST", &format!("{kb}/documents"), "application/json", body).unwrap();
            assert!(status == 200 && response["created"] == 1, "{text}: {response}");
        }
        let queries = [
            "apple",
            "<script>document.title='ran'</script> apple",
            "\"><img src=x onerror=document.title='ran'>",
        ];
        for query in queries {
            let encoded = form_urlencoded::byte_serialize(query.as_bytes()).collect::<String>();
            let dom = dump_dom(browser, profile.path(), &format!("{}/?q={encoded}", server.address()));
            assert!(dom.contains("<title>Nearfield</title>"), "a script ran: {dom}");
            assert_eq!(dom.matches("<h2>").count(), chunk.len(), "some documents are not shown: {dom}");
            assert_eq!(dom.matches("<script").count(), 1, "{dom}");
            assert!(dom.contains("<script src=\"/app.js\""), "{dom}");
            for injected in
                ["<img", "<svg", "<iframe", "<a ", "<style", "<base", "<form id=\"form\" action", "<details"]
            {
                assert!(!dom.contains(injected), "{injected} became markup: {dom}");
            }
            // The markup is shown as text.
            assert!(dom.contains("&lt;"), "{dom}");
        }
        for text in chunk {
            let id = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
            assert_eq!(send("DELETE", &format!("{kb}/documents/{id}"), &json!(null)).unwrap().0, 204);
        }
    }
    assert_eq!(other.requests(), Vec::<String>::new(), "the page sent requests to another host");
    server.kill();
}
