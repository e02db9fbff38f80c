//! A server and a client of its HTTP API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ureq::http::Request;

use crate::{
    open_loop::encode,
    server::{Launch, Server},
};

/// A server and a client with persistent connections.
pub(super) struct Api {
    pub(super) server: Server,
    agent: ureq::Agent,
}

/// A response.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) server_timing: Option<String>,
    pub(super) took: Duration,
}

/// A hit of a search.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hit {
    pub(super) id: String,
    pub(super) distance: f64,
    pub(super) score: f64,
}

impl Api {
    /// Starts a server.
    pub(super) fn start(launch: &Launch) -> Result<Api> {
        Ok(Api::of(Server::start(launch)?))
    }

    /// A client of a running server.
    pub(super) fn of(server: Server) -> Api {
        Api { server, agent: agent() }
    }

    /// Sends a request with an optional JSON body.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        call(&self.agent, method, &self.server.url(path), body)
    }

    pub(super) fn get(&self, path: &str) -> Result<Response> {
        self.call("GET", path, None)
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Response> {
        self.call("PUT", path, Some(body))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Response> {
        self.call("POST", path, Some(body))
    }

    /// `GET /search` over a collection.
    pub(super) fn search_text(&self, collection: &str, query: &str, k: usize) -> Result<Response> {
        self.get(&format!("/search?collection={collection}&k={k}&q={}", encode(query)))
    }

    /// The hits of `POST /collections/{c}/search`.
    pub(super) fn search(&self, collection: &str, search: &Value) -> Result<Vec<Hit>> {
        self.post(&format!("/collections/{collection}/search"), search)?.hits()
    }

    /// Recreates a collection with two text fields and one vector field.
    pub(super) fn recreate(&self, collection: &str, vector: &Value) -> Result<()> {
        self.drop_collection(collection)?;
        let schema = json!({"fields": [
            {"name": "title", "kind": "text"},
            {"name": "content", "kind": "text"},
            vector_field(vector),
        ]});
        self.put(&format!("/collections/{collection}"), &schema)?.expect(201)?;
        Ok(())
    }

    /// Drops a collection with its documents, if it exists.
    pub(super) fn drop_collection(&self, collection: &str) -> Result<()> {
        let response = self.call("DELETE", &format!("/collections/{collection}?documents=delete"), None)?;
        ensure!([204, 404].contains(&response.status), "dropping {collection}: {}", response.summary());
        Ok(())
    }

    /// Writes documents; an error unless all are accepted.
    pub(super) fn write(&self, collection: &str, documents: &[Value]) -> Result<Response> {
        let response =
            self.post(&format!("/collections/{collection}/documents"), &json!(documents))?.expect(200)?;
        ensure!(response.body["errors"] == 0, "writing to {collection}: {}", response.summary());
        Ok(response)
    }
}

/// A vector field named `embedding`: 4 values, HNSW, cosine, unless `options` override that.
fn vector_field(options: &Value) -> Value {
    let mut field = json!({"name": "embedding", "kind": "vector", "dim": 4});
    if let (Some(field), Some(options)) = (field.as_object_mut(), options.as_object()) {
        field.extend(options.clone());
    }
    field
}

impl Response {
    /// The response; an error unless it has this status.
    pub(super) fn expect(self, status: u16) -> Result<Response> {
        ensure!(self.status == status, "expected status {status}: {}", self.summary());
        Ok(self)
    }

    /// Status and message, for output.
    pub(super) fn summary(&self) -> String {
        let detail = self.body["detail"].as_str().map_or_else(|| self.body.to_string(), str::to_owned);
        format!("{} {detail}", self.status)
    }

    /// Whether the body contains `text`.
    pub(super) fn mentions(&self, text: &str) -> bool {
        self.body.to_string().contains(text)
    }

    /// The hits of a search.
    pub(super) fn hits(self) -> Result<Vec<Hit>> {
        let response = self.expect(200)?;
        let results = response.body["results"]
            .as_array()
            .with_context(|| format!("no results in {}", response.body))?;
        results
            .iter()
            .map(|hit| {
                Ok(Hit {
                    id: hit["id"].as_str().with_context(|| format!("no id in {hit}"))?.to_owned(),
                    distance: hit["distance"].as_f64().with_context(|| format!("no distance in {hit}"))?,
                    score: hit["score"].as_f64().with_context(|| format!("no score in {hit}"))?,
                })
            })
            .collect()
    }
}

/// A client that returns responses of every status.
pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(120)))
        .build()
        .new_agent()
}

/// Sends one request.
pub(super) fn call(agent: &ureq::Agent, method: &str, url: &str, body: Option<&Value>) -> Result<Response> {
    let text = body.map(Value::to_string).unwrap_or_default();
    let mut request = Request::builder().method(method).uri(url);
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let started = Instant::now();
    let mut response = match body {
        Some(_) => agent.run(request.body(text)?),
        None => agent.run(request.body(())?),
    }
    .with_context(|| format!("{method} {url}"))?;
    let status = response.status().as_u16();
    let header =
        response.headers().get("server-timing").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = response.body_mut().read_to_string().with_context(|| format!("{method} {url}"))?;
    let took = started.elapsed();
    // Only /metrics is not JSON.
    let body = match text.as_str() {
        "" => Value::Null,
        json => serde_json::from_str(json).unwrap_or(Value::String(text)),
    };
    Ok(Response { status, body, server_timing: header, took })
}
