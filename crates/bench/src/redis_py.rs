//! redis-py, the article's client, in a Python process.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    peer::{Peer, number},
    redis_server::RedisServer,
    vectors::Vectors,
};

/// The time a call took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Elapsed {
    /// Wall-clock time.
    pub(crate) seconds: f64,
    /// CPU seconds of the client process, user and system.
    pub(crate) cpu_s: f64,
}

/// The running peer, connected to a server.
#[derive(Debug)]
pub(crate) struct RedisPy {
    peer: Peer,
    /// `redis-py` and its version, with `+ hiredis` if it uses that parser.
    pub(crate) name: String,
}

impl RedisPy {
    /// Starts it on `core`, with the `hiredis` parser or with the pure Python one that the article's
    /// installation has.
    pub(crate) fn start(
        server: &RedisServer,
        cache_dir: &Path,
        core: usize,
        hiredis: bool,
    ) -> Result<RedisPy> {
        let arguments: &[&str] = if hiredis { &["--hiredis"] } else { &[] };
        let mut peer = Peer::start("redis", arguments, cache_dir, core)?;
        let response = peer.request(&json!({"do": "connect", "url": server.url()}))?;
        let version = response["version"].as_str().context("the response has no version")?;
        let name = format!("redis-py {version}{}", if hiredis { " + hiredis" } else { "" });
        Ok(RedisPy { peer, name })
    }

    /// Sends any request of the peer's protocol.
    pub(crate) fn request(&mut self, request: &Value) -> Result<Value> {
        self.peer.request(request)
    }

    /// Sends a request whose response contains the time it took.
    pub(crate) fn timed_request(&mut self, request: &Value) -> Result<Elapsed> {
        let response = self.peer.request(request)?;
        Ok(Elapsed { seconds: number(&response, "seconds")?, cpu_s: number(&response, "cpu_s")? })
    }

    /// Makes the peer read the first `rows` documents of a corpus and their vectors, to be loaded later.
    pub(crate) fn read_documents(&mut self, texts: &Path, vectors: &Vectors, rows: usize) -> Result<()> {
        self.peer.request(&json!({
            "do": "documents", "texts": std::path::absolute(texts)?,
            "vectors": std::path::absolute(&vectors.path)?, "dim": vectors.dim, "rows": rows,
        }))?;
        Ok(())
    }
}
