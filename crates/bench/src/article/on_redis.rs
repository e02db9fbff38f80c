//! The article on its own store: the same service with a real Redis behind it, looked at through
//! redis-py.

use std::{
    num::NonZero,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nearfield::service::{Algorithm, Config, Context, Leg, RedisStore, SearchRequest, Service};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Row, Verdict, site::Site, world::World};
use crate::{
    commands::redis::pipelining::{self, Sizes},
    corpus, machine, packages,
    peer::number,
    redis_py::RedisPy,
    redis_server::RedisServer,
    sample::Sample,
    vectors,
};

/// Connections the server is told to keep.
const CONNECTIONS: usize = 8;

/// A Redis, a server over it, a service of this process over it, and redis-py.
pub(super) struct OnRedis {
    site: Site,
    service: Service,
    runtime: Runtime,
    python: RedisPy,
    // Last: the others end before it does.
    _server: RedisServer,
}

impl OnRedis {
    /// Starts all of them.
    pub(super) fn start(world: &World<'_>) -> Result<OnRedis> {
        let server = RedisServer::start(world.dir.path(), None)?;
        let python = RedisPy::start(&server, &world.setting.cache_dir, machine::cores() - 1, false)?;
        let mut launch = world.launch("on-redis")?;
        let connections = CONNECTIONS.to_string();
        launch.arguments =
            ["--store", &server.url(), "--redis-connections", &connections].map(str::to_owned).into();
        let site = Site::start(&launch)?;
        let config = Config {
            store: server.store(),
            ..world.setting.service(&world.dir.path().join("on-redis-in-process"))?
        };
        let service = Service::open(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(OnRedis { site, service, runtime, python, _server: server })
    }
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "3-redis-stack",
        article: "Redis Stack as the vector database (RediSearch, RedisJSON, RedisTimeSeries, RedisAI)",
        peer: "Redis Stack 7.4 has no RedisAI [wire 00]",
        check: both_ways,
    },
    Row {
        id: "3.1-redis-create-index",
        article: "FT.CREATE idx:articles ON HASH PREFIX 1 article: ... on Redis itself",
        peer: "refused as printed: count 12 and EF_RUNTIME are right [wire 01]",
        check: create,
    },
    Row {
        id: "3.2-redis-store-hash",
        article: "hset(article:{id}, {title, content, embedding.tobytes()}) on Redis itself",
        peer: "a blob of a wrong size is taken in silence and the document is left out of the index [wire 03]",
        check: store,
    },
    Row {
        id: "3.3-redis-knn-query",
        article: "FT.SEARCH \"*=>[KNN 5 @embedding $vec]\" RETURN 2 title content SORTBY ... on Redis itself",
        peer: "refused as printed: DIALECT 2 is missing; without LIMIT at most 10 come back [wire 04]",
        check: query,
    },
    Row {
        id: "6.2-redis-pipelining",
        article: "pipelines: from ~0.2 ms a command to < 0.05 ms",
        peer: "in this run: see there, in parentheses",
        check: pipelining,
    },
    Row {
        id: "6.3-redis-pool",
        article: "the pool of connections to Redis, tuned",
        peer: "redis.asyncio opens as many as there are calls at once, up to max_connections",
        check: pool,
    },
    Row {
        id: "6.4-redis-ttl",
        article: "EXPIRE article:12345 86400 on Redis itself",
        peer: "as said: an expired document is not found any more [wire 08]",
        check: ttl,
    },
    Row {
        id: "7.4-redis-ram-360-mib",
        article: "RAM (250 k x 384 x 4 B): ~360 MiB, on Redis itself",
        peer: "1,209 MiB resident for the same documents; 1,904 bytes a vector [redis]",
        check: memory,
    },
];

/// What redis-py wrote is found, what we wrote is read by redis-py.
fn both_ways(world: &mut World<'_>) -> Result<Verdict> {
    let source = world.setting.source.packages();
    let documents = corpus::documents(&source, 20)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = vectors::of_texts(&world.setting.cache_dir, &world.setting.model()?, &source, &texts)?;
    let redis = world.redis()?;
    redis.site.drop("stack")?;
    redis.site.put("/collections/stack", &json!({}))?.expect(201)?;
    redis.python.take_documents(&source, &vectors, texts.len())?;
    redis
        .python
        .spend(&json!({"do": "load", "prefix": "stack:", "first": 0, "last": texts.len(), "batch": 10}))?;
    let mut found = 0;
    for (row, text) in texts.iter().enumerate() {
        let hits = redis.site.ask("stack", text, 1)?.hits()?;
        found += usize::from(hits.first().is_some_and(|hit| hit.id == row.to_string()));
    }
    let count = redis.site.get("/collections/stack/count")?.expect(200)?.body["count"].clone();
    redis.site.write("stack", &[json!({"id": "ours", "title": "t", "content": "written over HTTP"})])?;
    let back = redis.python.command(&["HGETALL", "stack:ours"])?;
    Ok(Verdict::new(
        found == texts.len() && count == texts.len() && back["content"] == "written over HTTP",
        format!(
            "--store redis://...: {found} of {} documents that redis-py wrote are found by their text, count {count}; redis-py reads what was written over HTTP: {}",
            texts.len(),
            back["content"]
        ),
    ))
}

fn create(world: &mut World<'_>) -> Result<Verdict> {
    let redis = world.redis()?;
    redis.site.drop("articles")?;
    let schema = |m: usize| {
        json!({"prefixes": ["article:"], "fields": [
            {"name": "title", "kind": "text"},
            {"name": "content", "kind": "text"},
            {"name": "embedding", "kind": "vector", "algorithm": "hnsw", "type": "FLOAT32", "dim": 384,
             "metric": "cosine", "m": m, "ef_construction": 200, "ef_search": 50},
        ]})
    };
    redis.site.put("/collections/articles", &schema(16))?.expect(201)?;
    let again = redis.site.put("/collections/articles", &schema(16))?;
    let other = redis.site.put("/collections/articles", &schema(32))?;
    let info = redis.python.command(&["FT.INFO", "articles"])?;
    let field = info["attributes"]
        .as_array()
        .and_then(|fields| fields.iter().find(|field| field["attribute"] == "embedding"))
        .with_context(|| format!("FT.INFO tells of no embedding: {info}"))?;
    let held = [
        ("algorithm", json!("HNSW")),
        ("dim", json!(384)),
        ("M", json!(16)),
        ("ef_construction", json!(200)),
    ]
    .into_iter()
    .all(|(name, value)| field[name] == value);
    Ok(Verdict::new(
        held && again.status == 200 && other.status == 409,
        format!(
            "FT.INFO has HNSW, DIM 384, M 16, EF_CONSTRUCTION 200: {held}; the same again: {}; with M 32: {}",
            again.status,
            other.told()
        ),
    ))
}

fn store(world: &mut World<'_>) -> Result<Verdict> {
    let redis = world.redis()?;
    redis.site.fresh("hashes", &json!({"dim": 384}))?;
    let vector: Vec<f32> = (0..384).map(|place| (place as f32 * 0.37).sin()).collect();
    let document = json!({"title": "Reset your password", "content": "Open settings…", "embedding": vector});
    redis.site.put("/collections/hashes/documents/12345", &document)?.expect(201)?;
    let back = redis.python.command(&["HGETALL", "hashes:12345"])?;
    let blob: String = vectors::bytes(&vector).iter().map(|byte| format!("{byte:02x}")).collect();
    let short = json!({"title": "short", "embedding": [1, 0, 0, 0]});
    let refused = redis.site.put("/collections/hashes/documents/short", &short)?;
    let same = ["title", "content"].iter().all(|name| back[name] == document[name])
        && back["embedding"]["hex"] == blob.as_str();
    Ok(Verdict::new(
        same && refused.status == 422,
        format!(
            "HGETALL gives title, content and the 1,536 bytes of embedding.tobytes(): {same}; a vector of 4: {}",
            refused.told()
        ),
    ))
}

fn query(world: &mut World<'_>) -> Result<Verdict> {
    let site = &world.redis()?.site;
    site.fresh("knn", &json!({}))?;
    let documents: Vec<Value> = (0..120)
        .map(|number| {
            let angle = f64::from(number) * 0.01;
            json!({"id": number.to_string(), "title": format!("t{number}"), "content": "c", "note": "n",
                   "embedding": [angle.cos(), angle.sin(), 0, 0]})
        })
        .collect();
    site.write("knn", &documents)?;
    let hits = site.search("knn", &json!({"vector": [1, 0, 0, 0], "k": 100, "ef_search": 200}))?;
    let in_order = hits.iter().enumerate().all(|(place, hit)| hit.id == place.to_string());
    let ask = json!({"vector": [1, 0, 0, 0], "k": 5, "fields": ["title", "content"]});
    let hit = site.post("/collections/knn/search", &ask)?.expect(200)?.body["results"][0].clone();
    let exactly = hit["fields"] == json!({"title": "t0", "content": "c"});
    Ok(Verdict::new(
        hits.len() == 100 && in_order && exactly,
        format!(
            "{} hits for k = 100, nearest first: {in_order}; fields as asked for: {}, with score {}",
            hits.len(),
            hit["fields"],
            hit["score"]
        ),
    ))
}

fn pipelining(world: &mut World<'_>) -> Result<Verdict> {
    let redis = world.redis()?;
    let (ours, theirs) = ("pipelined", "pipelined_by_python");
    for name in [ours, theirs] {
        let schema = packages::schema(name, Algorithm::Flat, pipelining::DIM, None);
        redis.runtime.block_on(redis.service.put_collection(&Context::local(), name, schema, false))?;
    }
    let mut told = Vec::new();
    let mut last_us = f64::INFINITY;
    for sizes in pipelining::SIZES {
        let Sizes { batch, rounds } = sizes;
        last_us = pipelining::write(&redis.service, &redis.runtime, ours, "", sizes)?;
        let answer = redis.python.ask(&json!({
            "do": "pipeline", "prefix": format!("{theirs}:{batch}-"), "batch": batch, "rounds": rounds,
        }))?;
        told.push(format!("{batch}: {last_us:.0} ({:.0})", number(&answer, "us_per_command")?));
    }
    Ok(Verdict::new(
        last_us < 50.0,
        format!(
            "microseconds a document by documents in a write, redis-py's in parentheses: {}",
            told.join(", ")
        ),
    ))
}

/// How many connections the server has, kept from its start.
fn pool(world: &mut World<'_>) -> Result<Verdict> {
    let redis = world.redis()?;
    let site = &redis.site;
    let python = &mut redis.python;
    let mut connected = || -> Result<usize> {
        let list = python.command(&["CLIENT", "LIST"])?;
        let lines = list.as_array().map(Vec::len).or_else(|| Some(list.as_str()?.lines().count()));
        // The service of this process has its own, redis-py one.
        let others = RedisStore::CONNECTIONS + 1;
        lines.and_then(|lines| lines.checked_sub(others)).with_context(|| format!("CLIENT LIST: {list}"))
    };
    let before = connected()?;
    site.fresh("pooled", &json!({}))?;
    site.write("pooled", &[json!({"id": "a", "embedding": [1, 0, 0, 0]})])?;
    let url = site.server.url("/collections/pooled/search");
    let ask = json!({"vector": [1, 0, 0, 0], "k": 1});
    let mut failed = 0;
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| {
                    let agent = super::site::agent();
                    (0..20)
                        .filter(|_| {
                            super::site::call(&agent, "POST", &url, Some(&ask))
                                .map_or(true, |reply| reply.status != 200)
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
            "--redis-connections {CONNECTIONS}: {before} connections at rest, {after} after 640 searches by 32 callers at once, {failed} of them failed"
        ),
    ))
}

fn ttl(world: &mut World<'_>) -> Result<Verdict> {
    let redis = world.redis()?;
    let site = &redis.site;
    site.fresh("ttl", &json!({}))?;
    site.write(
        "ttl",
        &[
            json!({"id": "12345", "embedding": [1, 0, 0, 0], "ttl_s": 2.5}),
            json!({"id": "stays", "embedding": [1, 0.1, 0, 0]}),
        ],
    )?;
    let written = Instant::now();
    let left = redis.python.command(&["PTTL", "ttl:12345"])?;
    let found = |site: &Site| -> Result<usize> {
        Ok(site.search("ttl", &json!({"vector": [1, 0, 0, 0], "k": 10}))?.len())
    };
    let before = found(site)?;
    ensure!(
        written.elapsed() < Duration::from_secs(2),
        "the machine was too slow to look at the document while it stood"
    );
    while found(site)? != 1 && written.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let gone_s = written.elapsed().as_secs_f64();
    let status = site.get("/collections/ttl/documents/12345")?.status;
    Ok(Verdict::new(
        left.as_u64().is_some_and(|left| (1..=2500).contains(&left))
            && before == 2
            && status == 404
            && (2.0..4.0).contains(&gone_s),
        format!(
            "ttl_s 2.5: PTTL {left}, found before; {gone_s:.1} s after the write not found, not got ({status})"
        ),
    ))
}

fn memory(world: &mut World<'_>) -> Result<Verdict> {
    let source = world.setting.source.packages();
    let documents = corpus::documents(&source, world.arguments.documents)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = vectors::of_texts(&world.setting.cache_dir, &world.setting.model()?, &source, &texts)?;
    let redis = world.redis()?;
    let schema = packages::schema(packages::NAME, packages::HNSW, vectors.dim, None);
    let before = redis.python.memory("used_memory")?;
    let started = Instant::now();
    redis.runtime.block_on(async {
        redis.service.put_collection(&Context::local(), packages::NAME, schema, false).await?;
        let batch = NonZero::new(500).expect("500 is not 0");
        packages::write(&redis.service, packages::NAME, &documents, Some((&vectors, 0)), batch).await
    })?;
    let seconds = started.elapsed().as_secs_f64();
    redis.python.index(packages::NAME, documents.len())?;
    let bytes = redis.python.memory("used_memory")? - before;
    let mib = bytes / 1_048_576.0;
    let count = documents.len() as f64;
    let times = Sample::new(search_times(redis, &vectors)?);
    Ok(world.at_full_scale(Verdict::new(
        mib <= 360.0,
        format!(
            "Redis: {mib:.0} MiB, {:.0} bytes a document with text, vector and links ({}), loaded at {:.0} documents/s; a vector's search takes {:.2} ms",
            bytes / count,
            world.scale(),
            count / seconds,
            times.median()
        ),
    )))
}

/// Milliseconds of a few searches by a document's own vector, through the service of this process.
fn search_times(redis: &OnRedis, vectors: &vectors::Vectors) -> Result<Vec<f64>> {
    (0..vectors.rows().min(100))
        .map(|row| {
            let search = SearchRequest {
                collection: Some(packages::NAME.to_owned()),
                legs: vec![Leg::Vector(vectors.row(row).to_vec())],
                ..SearchRequest::text("", 5)
            };
            let begun = Instant::now();
            redis.runtime.block_on(redis.service.search(&Context::local(), search))?;
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}
