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
use tower::ServiceExt as _;

use crate::{redis_cluster::RedisCluster, redis_stack::RedisStack, tiny_model};

/// The collection most cases work on.
pub(crate) const DOCS: &str = "docs";

/// Longer than anything here takes: beyond it the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Over RESP3, which is the default.
    Redis,
    /// Over RESP2.
    RedisResp2,
    /// Three primaries and their replicas.
    Cluster,
}

/// The service over a store that is empty at first.
pub(crate) struct House {
    router: Router,
    redis: Option<RedisStack>,
    _cluster: Option<RedisCluster>,
}

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) json: Value,
    pub(crate) etag: Option<String>,
}

/// A found document.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) score: f64,
    pub(crate) distance: f64,
    pub(crate) fields: Value,
}

/// Runs a case on a store of its own.
pub(crate) fn run(kind: Kind, case: impl AsyncFn(&House)) {
    let dir = TempDir::new().unwrap();
    tiny_model::write(&dir.path().join("models/tiny"), 1);
    let (mut redis, mut cluster) = (None, None);
    match kind {
        Kind::Directory => {}
        Kind::Redis | Kind::RedisResp2 => match RedisStack::plain() {
            Some(started) => redis = Some(started),
            None => return,
        },
        Kind::Cluster => match RedisCluster::start() {
            Some(started) => cluster = Some(started),
            None => return,
        },
    }
    let protocol = if kind == Kind::RedisResp2 { "?protocol=resp2" } else { "" };
    let store = redis.as_ref().map(|redis| format!("{}{protocol}", redis.url()));
    let store = store.or_else(|| cluster.as_ref().map(RedisCluster::url));
    let environment = store.map(|url| (OsString::from("NEARFIELD_STORE"), OsString::from(url)));
    let flags = Flags { home: Some(dir.path().to_owned()), ..Flags::default() };
    let settings = Settings::from_sources(&flags, None, environment).unwrap();
    let service = Service::open(settings.service()).unwrap();
    let house =
        House { router: http::router(service.clone(), HttpSettings::default()), redis, _cluster: cluster };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        house.ready().await;
        case(&house).await;
    });
    service.close();
}

impl House {
    /// The server behind the store.
    pub(crate) fn redis(&self) -> &RedisStack {
        self.redis.as_ref().expect("the store is a Redis")
    }

    /// Waits until requests are answered.
    async fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let reply = self.get("/readyz").await;
            if reply.status == 200 {
                return;
            }
            assert!(Instant::now() < until, "{}", reply.json);
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
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let reply = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (head, body) = reply.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let json = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        let etag = head.headers.get(header::ETAG).map(|etag| etag.to_str().unwrap().to_owned());
        Reply { status: head.status.as_u16(), json, etag }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], None).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.call("PUT", path, &[], Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, &[], Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.call("PATCH", path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, &[], None).await
    }

    /// Makes the collection most cases work on.
    pub(crate) async fn make(&self, fields: Value) {
        self.make_named(DOCS, json!({"fields": fields})).await;
    }

    pub(crate) async fn make_named(&self, name: &str, schema: Value) {
        self.put(&collection(name), &schema).await.expect(201);
    }

    /// Writes documents; each has to be taken.
    pub(crate) async fn load(&self, documents: &[Value]) {
        for documents in documents.chunks(1000) {
            let reply =
                self.post(&path(DOCS, "documents"), &json!({"documents": documents})).await.expect(200);
            assert_eq!(reply["errors"], 0, "{reply}");
        }
    }

    /// The hits of a search that has to succeed.
    pub(crate) async fn search(&self, search: Value) -> Vec<Found> {
        let reply = self.post(&path(DOCS, "search"), &search).await.expect(200);
        found(&reply)
    }

    /// Their ids.
    pub(crate) async fn ids(&self, search: Value) -> Vec<String> {
        self.search(search).await.into_iter().map(|hit| hit.id).collect()
    }

    /// How many documents match.
    pub(crate) async fn count(&self, filter: &str) -> u64 {
        let path = format!("{}?filter={}", path(DOCS, "count"), encoded(filter));
        self.get(&path).await.expect(200)["count"].as_u64().unwrap()
    }

    /// Waits until the collection holds so many documents that stood before it was made.
    pub(crate) async fn settled(&self, documents: u64) {
        self.settled_named(DOCS, documents).await;
    }

    pub(crate) async fn settled_named(&self, name: &str, documents: u64) {
        let until = Instant::now() + PATIENCE;
        loop {
            let info = self.get(&collection(name)).await.expect(200);
            if info["documents"] == documents && info["tail"] == 0 {
                return;
            }
            assert!(Instant::now() < until, "{info}");
            tokio::task::yield_now().await;
        }
    }

    /// Ids of all documents, by scrolling.
    pub(crate) async fn everything(&self) -> BTreeSet<String> {
        self.everything_by(1000).await
    }

    /// The same, so many a page.
    pub(crate) async fn everything_by(&self, limit: usize) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        let mut after = None;
        loop {
            let cursor =
                after.map_or_else(String::new, |after: String| format!("&after={}", encoded(&after)));
            let page =
                self.get(&format!("{}?limit={limit}{cursor}", path(DOCS, "documents"))).await.expect(200);
            for document in page["documents"].as_array().unwrap() {
                assert!(ids.insert(document["id"].as_str().unwrap().to_owned()), "{document} comes twice");
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return ids,
            }
        }
    }
}

impl Reply {
    /// The body, if the status is this.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json);
        self.json
    }

    /// The body, if this is a failure of that status and code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{}", self.json);
        self.json
    }
}

/// The hits in an answer.
pub(crate) fn found(answer: &Value) -> Vec<Found> {
    let hit = |hit: &Value| Found {
        id: hit["id"].as_str().unwrap().to_owned(),
        score: hit["score"].as_f64().unwrap(),
        distance: hit["distance"].as_f64().unwrap(),
        fields: hit["fields"].clone(),
    };
    answer["results"].as_array().unwrap().iter().map(hit).collect()
}

/// The path of a collection.
pub(crate) fn collection(name: &str) -> String {
    format!("/collections/{}", encoded(name))
}

/// The path of something of a collection.
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

/// A VECTOR field that is compared exactly, of vectors the documents bring.
pub(crate) fn flat(dim: usize, metric: &str) -> Value {
    json!({"name": "place", "kind": "vector", "algorithm": "flat", "dim": dim, "metric": metric})
}
