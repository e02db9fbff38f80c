//! A store, the service over it, and its routes.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use http_body_util::BodyExt as _;
use nearfield::{
    config::{Flags, Settings},
    service::Service,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use server::http::{self, HttpSettings};
use tempfile::TempDir;
use testing::{redis_cluster::RedisCluster, redis_stack::RedisStack, tiny_model};
use tower::ServiceExt as _;

/// The collection used by most cases.
pub(crate) const DOCS: &str = "docs";

/// Longer than any step of a test takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The stores on which the cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Directory,
    /// Over RESP3, which is the default.
    Redis,
    /// Over RESP2.
    RedisResp2,
    /// Three primaries and their replicas.
    Cluster,
}

/// The HTTP routes of a service with an initially empty store.
pub(crate) struct TestStore {
    service: Service,
    router: Router,
    redis: Option<RedisStack>,
    _cluster: Option<RedisCluster>,
}

/// The response to a request.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) json: Value,
    pub(crate) etag: Option<String>,
}

/// A search hit.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) id: String,
    pub(crate) score: f64,
    pub(crate) distance: f64,
    pub(crate) fields: Value,
}

/// Runs a case on a new store.
pub(crate) fn run(kind: StoreKind, case: impl AsyncFn(&TestStore)) {
    let dir = TempDir::new().unwrap();
    tiny_model::write(&dir.path().join("models/tiny"), 1);
    let (mut redis, mut cluster) = (None, None);
    match kind {
        StoreKind::Directory => {}
        StoreKind::Redis | StoreKind::RedisResp2 => match RedisStack::plain() {
            Some(started) => redis = Some(started),
            None => return,
        },
        StoreKind::Cluster => match RedisCluster::start() {
            Some(started) => cluster = Some(started),
            None => return,
        },
    }
    let protocol = if kind == StoreKind::RedisResp2 { "?protocol=resp2" } else { "" };
    let store = redis.as_ref().map(|redis| format!("{}{protocol}", redis.url()));
    let store = store.or_else(|| cluster.as_ref().map(RedisCluster::url));
    let environment = store.map(|url| (OsString::from("NEARFIELD_STORE"), OsString::from(url)));
    let flags = Flags { home: Some(dir.path().to_owned()), ..Flags::default() };
    let settings = Settings::from_sources(&flags, None, environment).unwrap();
    let service = Service::open(settings.service()).unwrap();
    let store = TestStore {
        service: service.clone(),
        router: http::router(service.clone(), HttpSettings::default()),
        redis,
        _cluster: cluster,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        store.wait_until_ready().await;
        case(&store).await;
    });
    service.close();
}

impl TestStore {
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// The Redis server of the store.
    pub(crate) fn redis(&self) -> &RedisStack {
        self.redis.as_ref().expect("the store is not in Redis")
    }

    /// Waits until the service is ready.
    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let response = self.get("/readyz").await;
            if response.status == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "{}", response.json);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a request.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let json = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        let etag = head.headers.get(header::ETAG).map(|etag| etag.to_str().unwrap().to_owned());
        Response { status: head.status.as_u16(), json, etag }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.call("GET", path, &[], None).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Response {
        self.call("PUT", path, &[], Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.call("POST", path, &[], Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Response {
        self.call("PATCH", path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.call("DELETE", path, &[], None).await
    }

    /// Creates the collection used by most cases.
    pub(crate) async fn create(&self, fields: Value) {
        self.create_named(DOCS, json!({"fields": fields})).await;
    }

    pub(crate) async fn create_named(&self, name: &str, schema: Value) {
        self.put(&collection(name), &schema).await.expect(201);
    }

    /// Writes documents; asserts that each is accepted.
    pub(crate) async fn load(&self, documents: &[Value]) {
        for documents in documents.chunks(1000) {
            let response =
                self.post(&path(DOCS, "documents"), &json!({"documents": documents})).await.expect(200);
            assert_eq!(response["errors"], 0, "{response}");
        }
    }

    /// Searches; asserts success and returns the hits.
    pub(crate) async fn search(&self, search: Value) -> Vec<Hit> {
        let response = self.post(&path(DOCS, "search"), &search).await.expect(200);
        hits(&response)
    }

    /// Searches; returns the ids of the hits.
    pub(crate) async fn ids(&self, search: Value) -> Vec<String> {
        self.search(search).await.into_iter().map(|hit| hit.id).collect()
    }

    /// The number of matching documents.
    pub(crate) async fn count(&self, filter: &str) -> u64 {
        let path = format!("{}?filter={}", path(DOCS, "count"), encoded(filter));
        self.get(&path).await.expect(200)["count"].as_u64().unwrap()
    }

    /// Waits until the collection has indexed this number of documents that are older than itself.
    pub(crate) async fn wait_until_indexed(&self, documents: u64) {
        self.wait_until_indexed_in(DOCS, documents).await;
    }

    pub(crate) async fn wait_until_indexed_in(&self, name: &str, documents: u64) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let info = self.get(&collection(name)).await.expect(200);
            // In a cluster, a shard is not searched before it reports that its index is complete.
            let is_complete = self.get(&path(name, "count?filter=*")).await.status != 503;
            if info["documents"] == documents && info["tail"] == 0 && is_complete {
                return;
            }
            assert!(Instant::now() < deadline, "{info}");
            tokio::task::yield_now().await;
        }
    }

    /// The ids of all documents, read with a scroll.
    pub(crate) async fn all_ids(&self) -> BTreeSet<String> {
        self.all_ids_with_page_size(1000).await
    }

    /// The ids of all documents, with `limit` per page.
    pub(crate) async fn all_ids_with_page_size(&self, limit: usize) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        let mut after = None;
        loop {
            let cursor =
                after.map_or_else(String::new, |after: String| format!("&after={}", encoded(&after)));
            let page =
                self.get(&format!("{}?limit={limit}{cursor}", path(DOCS, "documents"))).await.expect(200);
            for document in page["documents"].as_array().unwrap() {
                assert!(
                    ids.insert(document["id"].as_str().unwrap().to_owned()),
                    "{document} is returned twice"
                );
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return ids,
            }
        }
    }
}

impl Response {
    /// Asserts the status; returns the body.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json);
        self.json
    }

    /// Asserts that this is an error with this status and code; returns the body.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{}", self.json);
        self.json
    }
}

/// The hits in a response.
pub(crate) fn hits(response: &Value) -> Vec<Hit> {
    let hit = |hit: &Value| Hit {
        id: hit["id"].as_str().unwrap().to_owned(),
        score: hit["score"].as_f64().unwrap(),
        distance: hit["distance"].as_f64().unwrap(),
        fields: hit["fields"].clone(),
    };
    response["results"].as_array().unwrap().iter().map(hit).collect()
}

/// The path of a collection.
pub(crate) fn collection(name: &str) -> String {
    format!("/collections/{}", encoded(name))
}

/// A path below a collection.
pub(crate) fn path(name: &str, rest: &str) -> String {
    format!("{}/{rest}", collection(name))
}

/// The path of a document.
pub(crate) fn document(id: &str) -> String {
    let id = match id {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        id => encoded(id),
    };
    path(DOCS, &format!("documents/{id}"))
}

pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A vector field with exact search and without embedding.
pub(crate) fn flat(dim: usize, metric: &str) -> Value {
    json!({"name": "place", "kind": "vector", "algorithm": "flat", "dim": dim, "metric": metric})
}
