//! The article's sections about Redis: the server and the service over Redis Stack, inspected through redis-cli and
//! redis-py.

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nearfield::service::{Algorithm, Config, Context, Leg, RedisStore, SearchRequest, Service};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Claim, Verdict, api::Api, fixtures::Fixtures};
use crate::{
    commands::redis::pipelining::{self, PipelineSize},
    corpus, machine, packages,
    peer::{Peers, number},
    redis_py::RedisPy,
    redis_server::RedisServer,
    sample::Sample,
    vectors,
};

/// Redis connections configured for the server.
const CONNECTIONS: usize = 8;

/// A Redis, a server over it, an in-process service over it, and redis-py unless excluded.
pub(super) struct RedisFixture {
    api: Api,
    service: Service,
    runtime: Runtime,
    python: Option<RedisPy>,
    // Declared last, so that the others are dropped first.
    redis: RedisServer,
}

impl RedisFixture {
    /// Starts all of them.
    pub(super) fn start(fixtures: &Fixtures<'_>) -> Result<RedisFixture> {
        let redis = RedisServer::start(fixtures.dir.path(), None)?;
        let python = match fixtures.arguments.peers {
            Peers::All => {
                let core = machine::cores() - 1;
                Some(RedisPy::start(&redis, &fixtures.global.cache_dir, core, false)?)
            }
            Peers::None => None,
        };
        let mut launch = fixtures.launch("on-redis")?;
        let connections = CONNECTIONS.to_string();
        launch.arguments =
            ["--store", &redis.url(), "--redis-connections", &connections].map(str::to_owned).into();
        let api = Api::start(&launch)?;
        let config = Config {
            store: redis.store(),
            ..fixtures.global.service(&fixtures.dir.path().join("on-redis-in-process"))?
        };
        let service = Service::open(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(RedisFixture { api, service, runtime, python, redis })
    }
}

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "3-redis-stack",
        article: "Redis Stack as the vector database (RediSearch, RedisJSON, RedisTimeSeries, RedisAI)",
        peer: "Redis Stack 7.4 has no RedisAI [wire 00]",
        check: interoperate,
    },
    Claim {
        id: "3.1-redis-create-index",
        article: "FT.CREATE idx:articles ON HASH PREFIX 1 article: ... on Redis itself",
        peer: "rejected as printed: count 12 and EF_RUNTIME are correct [wire 01]",
        check: create_index,
    },
    Claim {
        id: "3.2-redis-store-hash",
        article: "hset(article:{id}, {title, content, embedding.tobytes()}) on Redis itself",
        peer: "a blob of the wrong size is accepted silently, and the document is missing from the index [wire 03]",
        check: store_hash,
    },
    Claim {
        id: "3.3-redis-knn-query",
        article: "FT.SEARCH \"*=>[KNN 5 @embedding $vec]\" RETURN 2 title content SORTBY ... on Redis itself",
        peer: "rejected as printed: DIALECT 2 is missing; without LIMIT at most 10 hits are returned [wire 04]",
        check: knn_query,
    },
    Claim {
        id: "6.2-redis-pipelining",
        article: "pipelines: from ~0.2 ms a command to < 0.05 ms",
        peer: "measured in this run, in parentheses",
        check: pipeline_writes,
    },
    Claim {
        id: "6.3-redis-pool",
        article: "the pool of connections to Redis, tuned",
        peer: "redis.asyncio opens as many as there are calls at once, up to max_connections",
        check: connection_pool,
    },
    Claim {
        id: "6.4-redis-ttl",
        article: "EXPIRE article:12345 86400 on Redis itself",
        peer: "confirmed: an expired document is no longer found [wire 08]",
        check: expire,
    },
    Claim {
        id: "7.4-redis-ram-360-mib",
        article: "RAM (250 k x 384 x 4 B): ~360 MiB, on Redis itself",
        peer: "1,209 MiB resident for the same documents; 1,904 bytes per vector [redis]",
        check: measure_memory,
    },
];

/// Nearfield finds what redis-py wrote, and what Nearfield wrote can be read from Redis.
fn interoperate(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let source = fixtures.global.data.packages()?;
    let documents = corpus::documents(&source, 20)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = vectors::of_texts(&fixtures.global.cache_dir, &fixtures.global.model()?, &source, &texts)?;
    let redis = fixtures.redis()?;
    redis.api.drop_collection("stack")?;
    redis.api.put("/collections/stack", &json!({}))?.expect(201)?;
    let Some(python) = &mut redis.python else {
        return Ok(Verdict::not_checked("needs redis-py, which --peers none excludes"));
    };
    python.read_documents(&source, &vectors, texts.len())?;
    python.timed_request(
        &json!({"do": "load", "prefix": "stack:", "first": 0, "last": texts.len(), "batch": 10}),
    )?;
    let mut found = 0;
    for (row, text) in texts.iter().enumerate() {
        let hits = redis.api.search_text("stack", text, 1)?.hits()?;
        found += usize::from(hits.first().is_some_and(|hit| hit.id == row.to_string()));
    }
    let count = redis.api.get("/collections/stack/count")?.expect(200)?.body["count"].clone();
    redis.api.write("stack", &[json!({"id": "ours", "title": "t", "content": "written over HTTP"})])?;
    let read_back = redis.redis.json(&["HGETALL", "stack:ours"])?;
    Ok(Verdict::new(
        found == texts.len() && count == texts.len() && read_back["content"] == "written over HTTP",
        format!(
            "--store redis://...: {found} of {} documents that redis-py wrote are found by their text, count {count}; a document written over HTTP, read from Redis: {}",
            texts.len(),
            read_back["content"]
        ),
    ))
}

fn create_index(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let redis = fixtures.redis()?;
    redis.api.drop_collection("articles")?;
    let schema = |m: usize| {
        json!({"prefixes": ["article:"], "fields": [
            {"name": "title", "kind": "text"},
            {"name": "content", "kind": "text"},
            {"name": "embedding", "kind": "vector", "algorithm": "hnsw", "type": "FLOAT32", "dim": 384,
             "metric": "cosine", "m": m, "ef_construction": 200, "ef_search": 50},
        ]})
    };
    redis.api.put("/collections/articles", &schema(16))?.expect(201)?;
    let again = redis.api.put("/collections/articles", &schema(16))?;
    let other = redis.api.put("/collections/articles", &schema(32))?;
    let info = redis.redis.json(&["FT.INFO", "articles"])?;
    let field = info["attributes"]
        .as_array()
        .and_then(|fields| fields.iter().find(|field| field["attribute"] == "embedding"))
        .with_context(|| format!("FT.INFO has no field embedding: {info}"))?;
    let has_parameters = [
        ("algorithm", json!("HNSW")),
        ("dim", json!(384)),
        ("M", json!(16)),
        ("ef_construction", json!(200)),
    ]
    .into_iter()
    .all(|(name, value)| field[name] == value);
    Ok(Verdict::new(
        has_parameters && again.status == 200 && other.status == 409,
        format!(
            "FT.INFO has HNSW, DIM 384, M 16, EF_CONSTRUCTION 200: {has_parameters}; the same schema again: {}; with M 32: {}",
            again.status,
            other.summary()
        ),
    ))
}

fn store_hash(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let redis = fixtures.redis()?;
    redis.api.recreate("hashes", &json!({"dim": 384}))?;
    let vector: Vec<f32> = (0..384).map(|position| (position as f32 * 0.37).sin()).collect();
    let document = json!({"title": "Reset your password", "content": "Open settings…", "embedding": vector});
    redis.api.put("/collections/hashes/documents/12345", &document)?.expect(201)?;
    let hash = |field| redis.redis.bytes(&["HGET", "hashes:12345", field]);

    let short = json!({"title": "short", "embedding": [1, 0, 0, 0]});
    let rejected = redis.api.put("/collections/hashes/documents/short", &short)?;
    let same = hash("title")? == b"Reset your password"
        && hash("content")? == "Open settings…".as_bytes()
        && hash("embedding")? == vectors::bytes(&vector);
    Ok(Verdict::new(
        same && rejected.status == 422,
        format!(
            "HGET returns title, content and the 1,536 bytes of embedding.tobytes(): {same}; a vector of 4: {}",
            rejected.summary()
        ),
    ))
}

fn knn_query(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let api = &fixtures.redis()?.api;
    api.recreate("knn", &json!({}))?;
    let documents: Vec<Value> = (0..120)
        .map(|number| {
            let angle = f64::from(number) * 0.01;
            json!({"id": number.to_string(), "title": format!("t{number}"), "content": "c", "note": "n",
                   "embedding": [angle.cos(), angle.sin(), 0, 0]})
        })
        .collect();
    api.write("knn", &documents)?;
    let hits = api.search("knn", &json!({"vector": [1, 0, 0, 0], "k": 100, "ef_search": 200}))?;
    let in_order = hits.iter().enumerate().all(|(position, hit)| hit.id == position.to_string());
    let search = json!({"vector": [1, 0, 0, 0], "k": 5, "fields": ["title", "content"]});
    let hit = api.post("/collections/knn/search", &search)?.expect(200)?.body["results"][0].clone();
    let has_fields = hit["fields"] == json!({"title": "t0", "content": "c"});
    Ok(Verdict::new(
        hits.len() == 100 && in_order && has_fields,
        format!(
            "{} hits for k = 100, nearest first: {in_order}; fields as requested: {}, with score {}",
            hits.len(),
            hit["fields"],
            hit["score"]
        ),
    ))
}

fn pipeline_writes(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let redis = fixtures.redis()?;
    let (ours, theirs) = ("pipelined", "pipelined_by_python");
    for name in [ours, theirs] {
        let schema = packages::schema(name, Algorithm::Flat, pipelining::DIM, None);
        redis.runtime.block_on(redis.service.put_collection(&Context::local(), name, schema, false))?;
    }
    let mut parts = Vec::new();
    let mut last_us = f64::INFINITY;
    for size in pipelining::PIPELINE_SIZES {
        let PipelineSize { batch, rounds } = size;
        last_us = pipelining::write(&redis.service, &redis.runtime, ours, "", size)?;
        let redis_py = match &mut redis.python {
            None => "-".to_owned(),
            Some(python) => {
                let response = python.request(&json!({
                    "do": "pipeline", "prefix": format!("{theirs}:{batch}-"), "batch": batch, "rounds": rounds,
                }))?;
                format!("{:.0}", number(&response, "us_per_command")?)
            }
        };
        parts.push(format!("{batch}: {last_us:.0} ({redis_py})"));
    }
    Ok(Verdict::new(
        last_us < 50.0,
        format!(
            "microseconds per document by documents per write, redis-py's in parentheses: {}",
            parts.join(", ")
        ),
    ))
}

/// The number of connections the server has, which is constant from its start.
fn connection_pool(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let redis = fixtures.redis()?;
    let api = &redis.api;
    // The in-process service has connections of its own; redis-cli has one, and redis-py one if it runs.
    let others = RedisStore::CONNECTIONS + 1 + usize::from(redis.python.is_some());
    let connected = || -> Result<usize> {
        let list = redis.redis.command(&["CLIENT", "LIST"])?;
        let clients = list.lines().filter(|line| line.contains("addr=")).count();
        clients.checked_sub(others).with_context(|| format!("CLIENT LIST: {list}"))
    };
    let before = connected()?;
    api.recreate("pooled", &json!({}))?;
    api.write("pooled", &[json!({"id": "a", "embedding": [1, 0, 0, 0]})])?;
    let url = api.server.url("/collections/pooled/search");
    let search = json!({"vector": [1, 0, 0, 0], "k": 1});
    let mut failed = 0;
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| {
                    let agent = super::api::agent();
                    (0..20)
                        .filter(|_| {
                            super::api::call(&agent, "POST", &url, Some(&search))
                                .map_or(true, |response| response.status != 200)
                        })
                        .count()
                })
            })
            .collect();
        failed += callers.into_iter().map(|caller| caller.join().unwrap_or(20)).sum::<usize>();
    });
    let after = connected()?;
    Ok(Verdict::new(
        before == CONNECTIONS && after == CONNECTIONS && failed == 0,
        format!(
            "--redis-connections {CONNECTIONS}: {before} connections when idle, {after} after 640 searches by 32 concurrent clients, {failed} of them failed"
        ),
    ))
}

fn expire(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let redis = fixtures.redis()?;
    let api = &redis.api;
    api.recreate("ttl", &json!({}))?;
    api.write(
        "ttl",
        &[
            json!({"id": "12345", "embedding": [1, 0, 0, 0], "ttl_s": 2.5}),
            json!({"id": "stays", "embedding": [1, 0.1, 0, 0]}),
        ],
    )?;
    let written = Instant::now();
    let remaining_ms = redis.redis.json(&["PTTL", "ttl:12345"])?;
    let found = |api: &Api| -> Result<usize> {
        Ok(api.search("ttl", &json!({"vector": [1, 0, 0, 0], "k": 10}))?.len())
    };
    let before = found(api)?;
    ensure!(
        written.elapsed() < Duration::from_secs(2),
        "the machine was too slow to search for the document before it expired"
    );
    while found(api)? != 1 && written.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let gone_s = written.elapsed().as_secs_f64();
    let status = api.get("/collections/ttl/documents/12345")?.status;
    Ok(Verdict::new(
        remaining_ms.as_u64().is_some_and(|ms| (1..=2500).contains(&ms))
            && before == 2
            && status == 404
            && (2.0..4.0).contains(&gone_s),
        format!(
            "ttl_s 2.5: PTTL {remaining_ms}, found before; {gone_s:.1} s after the write no longer found, GET returns {status}"
        ),
    ))
}

fn measure_memory(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let source = fixtures.global.data.packages()?;
    let documents = corpus::documents(&source, fixtures.arguments.documents)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = vectors::of_texts(&fixtures.global.cache_dir, &fixtures.global.model()?, &source, &texts)?;
    let redis = fixtures.redis()?;
    let schema = packages::schema(packages::NAME, packages::HNSW, vectors.dim, None);
    let before = redis.redis.memory("used_memory")?;
    let started = Instant::now();
    redis.runtime.block_on(async {
        redis.service.put_collection(&Context::local(), packages::NAME, schema, false).await?;
        let batch = NonZero::new(500).expect("500 is not 0");
        packages::write(&redis.service, packages::NAME, &documents, Some((&vectors, 0)), batch).await
    })?;
    let seconds = started.elapsed().as_secs_f64();
    redis.redis.index_info(packages::NAME, documents.len())?;
    let bytes = redis.redis.memory("used_memory")? - before;
    let mib = bytes / 1_048_576.0;
    let count = documents.len() as f64;
    let times = Sample::new(search_times(redis, &vectors)?);
    Ok(fixtures.at_full_scale(Verdict::new(
        mib <= 360.0,
        format!(
            "Redis: {mib:.0} MiB, {:.0} bytes per document with text, vector and links ({}), loaded at {:.0} documents/s; a search by vector takes {:.2} ms",
            bytes / count,
            fixtures.scale(),
            count / seconds,
            times.median()
        ),
    )))
}

/// Milliseconds of searches by the vectors of the first documents, through the in-process service.
fn search_times(redis: &RedisFixture, vectors: &vectors::Vectors) -> Result<Vec<f64>> {
    (0..vectors.rows().min(100))
        .map(|row| {
            let search = SearchRequest {
                collection: Some(packages::NAME.to_owned()),
                legs: vec![Leg::Vector(vectors.row(row).to_vec())],
                ..SearchRequest::text("", 5)
            };
            let began = Instant::now();
            redis.runtime.block_on(redis.service.search(&Context::local(), search))?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}
