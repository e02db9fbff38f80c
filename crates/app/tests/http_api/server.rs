//! A server for one test, with the tiny model, on a port chosen by the system.

use std::{net::SocketAddr, path::Path};

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use server::serve::{self, ConnectionSettings};
use service::{Config, Service, Store};
use tempfile::TempDir;
use testing::tiny_model;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::client::{Connection, Response, request};

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// A running server that is stopped on drop.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) service: Service,
    stop: CancellationToken,
    runtime: Option<Runtime>,
    running: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Server {
    /// A server with the empty collection `kb`.
    pub(crate) fn start() -> Server {
        let server = Server::with(ConnectionSettings::default());
        server.put("/collections/kb", &schema()).ok(201);
        server
    }

    /// A server with a few articles in `kb`.
    pub(crate) fn with_articles() -> Server {
        let server = Server::start();
        let articles: Vec<Value> = ARTICLES
            .iter()
            .map(|(id, title, content, category, year)| {
                json!({"id": id, "title": title, "content": content, "category": category, "year": year})
            })
            .collect();
        let results = server.post("/collections/kb/documents", &json!(articles)).ok(200);
        assert_eq!(results["created"], ARTICLES.len());
        server
    }

    /// An empty server with these settings.
    pub(crate) fn with(settings: ConnectionSettings) -> Server {
        Server::with_service(settings, |_| ())
    }

    /// An empty server with a changed service configuration.
    pub(crate) fn with_service(mut settings: ConnectionSettings, change: impl FnOnce(&mut Config)) -> Server {
        let dir = TempDir::new().unwrap();
        tiny_model::write(&dir.path().join("models/tiny"), 1);
        let mut config = config(dir.path());
        change(&mut config);
        let service = Service::open(config).unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        settings.http.metrics.get_or_insert(recorder.handle());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let running = runtime.spawn(serve::run(vec![listener], service.clone(), settings, stop.clone()));
        Server { address, service, stop, runtime: Some(runtime), running: Some(running), _dir: dir }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Sends a request on a new connection.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut connection = self.connect();
        connection.write(request(method, path, headers, body));
        let bytes = connection.read_to_end();
        Response::parse(&bytes)
            .unwrap_or_else(|| panic!("not an HTTP response: {:?}", String::from_utf8_lossy(&bytes)))
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn delete(&self, path: &str) -> Response {
        self.send("DELETE", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[JSON], body.to_string().as_bytes())
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Response {
        self.send("PUT", path, &[JSON], body.to_string().as_bytes())
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Response {
        self.send("PATCH", path, &[JSON], body.to_string().as_bytes())
    }

    /// Requests a graceful stop.
    pub(crate) fn request_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the server has stopped.
    pub(crate) fn wait(&mut self) {
        let running = self.running.take().expect("`wait` is called once");
        self.runtime.as_ref().unwrap().block_on(running).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
        self.service.close();
    }
}

fn config(dir: &Path) -> Config {
    Config {
        store: Store::Directory,
        data_dir: dir.join("data"),
        models_dir: dir.join("models"),
        workers: 2,
        queue_wait: std::time::Duration::from_secs(60),
        queue_max: 1024,
        timeout: std::time::Duration::from_secs(60),
        cpu_level: None,
        query_compute: None,
        document_compute: None,
        cache_bytes: 16 << 20,
        query_cache_bytes: 0,
        pin_workers: false,
        disk_reserve_bytes: 0,
        memory_max_bytes: 0,
        durability: service::Durability::Always,
        tail_max: 10_000,
        index_threads: 1,
    }
}

/// Title and content embedded by the tiny model, a tag, a number, and a vector given by documents.
pub(crate) fn schema() -> Value {
    json!({"fields": [
        {"name": "title", "kind": "text"},
        {"name": "content", "kind": "text"},
        {"name": "category", "kind": "tag", "separator": ","},
        {"name": "year", "kind": "numeric"},
        {"name": "embedding", "kind": "vector", "dim": tiny_model::DIM,
         "embed": {"fields": ["title", "content"], "model": "tiny"}},
    ]})
}

/// Id, title, content, category and year.
pub(crate) const ARTICLES: [(&str, &str, &str, &str, u32); 4] = [
    ("kb-1", "refund payment", "card invoice refund price", "billing", 2021),
    ("kb-2", "reset password", "login account email token", "login", 2022),
    ("kb-3", "router signal", "network cable port server", "network", 2023),
    ("kb-4", "fruit", "apple pear plum cherry", "kitchen", 2024),
];
