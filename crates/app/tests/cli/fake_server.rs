//! A server with scripted responses, for errors that a real server rarely produces.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use serde_json::{Value, json};

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Ids of the documents in an NDJSON body.
    pub(crate) fn ids(&self) -> Vec<String> {
        let id = |line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        self.body.lines().map(id).collect()
    }
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(status: u16, body: &str) -> Response {
        Response {
            status,
            headers: vec![("Content-Type", "application/json".to_owned())],
            body: body.to_owned(),
        }
    }

    pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Response {
        Response::json(status, &json!({"status": status, "code": code, "detail": detail}).to_string())
    }

    /// A result for each document, given by `outcome_of`: created, unchanged, or an error status.
    pub(crate) fn results(
        ids: &[String],
        outcome_of: impl Fn(&str) -> Result<&'static str, u16>,
    ) -> Response {
        let result = |id: &String| match outcome_of(id) {
            Ok(status) => json!({"id": id, "status": status, "seq": 1}),
            Err(status) => {
                let error = json!({"status": status, "code": "x", "detail": format!("{id} is rejected")});
                json!({"id": id, "status": "error", "error": error})
            }
        };
        let results: Vec<Value> = ids.iter().map(result).collect();
        Response::json(200, &json!({"results": results}).to_string())
    }
}

/// Listens until the test process ends, with one thread per connection.
pub(crate) struct FakeServer {
    address: SocketAddr,
}

impl FakeServer {
    pub(crate) fn start(response: impl Fn(&Request) -> Response + Send + Sync + 'static) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let response = Arc::new(response);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let response = response.clone();
                thread::spawn(move || serve_connection(stream.unwrap(), &*response));
            }
        });
        FakeServer { address }
    }

    /// A server with a collection `articles` that has title and content. `post` responds to writes of documents.
    pub(crate) fn with_articles(post: impl Fn(&Request) -> Response + Send + Sync + 'static) -> FakeServer {
        FakeServer::start(move |request| match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/collections/articles") => {
                let text = |name: &str| json!({"name": name, "kind": "text"});
                let embed = json!({"fields": ["title", "content"], "model": "m"});
                let vector = json!({"name": "embedding", "kind": "vector", "embed": embed});
                let fields = json!([text("title"), text("content"), vector]);
                Response::json(200, &json!({"name": "articles", "schema": {"fields": fields}}).to_string())
            }
            ("POST", "/collections/articles/documents") => post(request),
            _ => Response::problem(404, "not-found", "no such path"),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Responds to requests until the client disconnects.
fn serve_connection(stream: TcpStream, response: &dyn Fn(&Request) -> Response) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read(&mut reader) {
        let Response { status, headers, body } = response(&request);
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if write!(writer, "{head}\r\n{body}").is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let mut request = Request { method, path, headers, body: String::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}
