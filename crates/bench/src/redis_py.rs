//! redis-py in its Python process: the article's client, and a look behind our own's back.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    peer::{Peer, number},
    redis_server::RedisServer,
    vectors::Vectors,
};

/// How long a new index may take to go through all keys.
const SCAN_TIMEOUT: Duration = Duration::from_secs(600);

/// What a call to a server took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    /// From beginning to end.
    pub(crate) seconds: f64,
    /// Processor seconds of the client's process, user and system.
    pub(crate) cpu_s: f64,
}

/// The running peer, connected to a server.
#[derive(Debug)]
pub(crate) struct RedisPy {
    peer: Peer,
    /// `redis-py` and its version, with `+ hiredis` if it parses with that.
    pub(crate) name: String,
}

impl RedisPy {
    /// Starts it on `core`; it parses with `hiredis`, or in Python as the article's installation does.
    pub(crate) fn start(
        server: &RedisServer,
        cache_dir: &Path,
        core: usize,
        hiredis: bool,
    ) -> Result<RedisPy> {
        let arguments: &[&str] = if hiredis { &["--hiredis"] } else { &[] };
        let mut peer = Peer::start("redis", arguments, cache_dir, core)?;
        let answer = peer.ask(&json!({"do": "connect", "url": server.url()}))?;
        let version = answer["version"].as_str().context("the answer has no version")?;
        let name = format!("redis-py {version}{}", if hiredis { " + hiredis" } else { "" });
        Ok(RedisPy { peer, name })
    }

    /// The reply to a command; bytes that are not UTF-8 come as an object with `hex`.
    pub(crate) fn command(&mut self, words: &[&str]) -> Result<Value> {
        Ok(self.peer.ask(&json!({"do": "command", "arguments": words}))?["reply"].take())
    }

    /// Any other request of the peer.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value> {
        self.peer.ask(request)
    }

    /// A request that is answered with what it took.
    pub(crate) fn spend(&mut self, request: &Value) -> Result<Spent> {
        let answer = self.peer.ask(request)?;
        Ok(Spent { seconds: number(&answer, "seconds")?, cpu_s: number(&answer, "cpu_s")? })
    }

    /// Hands it the first `rows` documents of a corpus with their vectors: what it loads later.
    pub(crate) fn take_documents(&mut self, texts: &Path, vectors: &Vectors, rows: usize) -> Result<()> {
        self.peer.ask(&json!({
            "do": "documents", "texts": std::path::absolute(texts)?,
            "vectors": std::path::absolute(&vectors.path)?, "dim": vectors.dim, "rows": rows,
        }))?;
        Ok(())
    }

    /// A number of `INFO memory`.
    pub(crate) fn memory(&mut self, name: &str) -> Result<f64> {
        number(&self.command(&["INFO", "memory"])?, name)
    }

    /// Waits until a new index has gone through the keys that stood already: until then it works in
    /// the background, at the cost of whoever is measured.
    pub(crate) fn wait_until_scanned(&mut self, index: &str) -> Result<()> {
        let started = Instant::now();
        while figure(&self.command(&["FT.INFO", index])?, "indexing")? != 0.0 {
            ensure!(started.elapsed() < SCAN_TIMEOUT, "index {index} does not come to the end of the keys");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `FT.INFO` of an index that holds `documents` and has refused none.
    pub(crate) fn index(&mut self, index: &str, documents: usize) -> Result<Value> {
        let info = self.command(&["FT.INFO", index])?;
        let (held, failures) = (figure(&info, "num_docs")?, figure(&info, "hash_indexing_failures")?);
        ensure!(
            held == documents as f64 && failures == 0.0,
            "index {index} holds {held} documents and has refused {failures} where {documents} were written"
        );
        Ok(info)
    }
}

/// A figure of `FT.INFO`: a number, or its digits.
pub(crate) fn figure(info: &Value, name: &str) -> Result<f64> {
    let value = &info[name];
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok())
        .with_context(|| format!("FT.INFO has no number {name}: {info}"))
}
