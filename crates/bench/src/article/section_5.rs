//! Section 5: concurrency for high throughput.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use embed::ComputeType;
use serde_json::json;

use super::{Row, Verdict, site, world::World};
use crate::{machine, open_loop, sample::Sample, server};

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "5-thousands-concurrent",
        article: "the service must handle thousands of concurrent queries",
        peer: "8 queries a second under 32 connections as printed [stack]",
        check: |world| {
            let outcome = flood(world, 500, 2000.0)?;
            let answered = outcome.due - outcome.failed();
            // Too much is refused with 503 or has to wait; anything else is a fault.
            let faults: usize =
                outcome.errors.iter().filter(|(status, _)| **status != 503).map(|(_, count)| count).sum();
            let alive = world.packages()?.server_is_running()?;
            Ok(Verdict::new(
                alive && faults == 0 && answered > 0,
                format!(
                    "2,000 a second offered over 500 connections: {answered} of {} answered, not answered {}; the process lives: {alive}",
                    outcome.due,
                    outcome.errors_text()
                ),
            ))
        },
    },
    Row {
        id: "5.1-async-connections",
        article: "AsyncIO + redis.asyncio: many connections on one event loop",
        peer: "",
        check: |world| {
            let outcome = flood(world, 200, 100.0)?;
            Ok(Verdict::new(
                outcome.failed() == 0,
                format!(
                    "200 connections open, 100 queries a second: {} of {} answered, p99 {:.1} ms",
                    outcome.due - outcome.failed(),
                    outcome.due,
                    outcome.latency_ms.quantile(0.99)
                ),
            ))
        },
    },
    Row {
        id: "5.2-offload-cpu-work",
        article: "embedding must not block the event loop: offload it",
        peer: "embed_text in async_search blocks the loop: 8 a second under 32 connections [stack]",
        check: health_under_load,
    },
    Row {
        id: "5.2-process-pool",
        article: "ProcessPoolExecutor(max_workers=4): one copy of the model a process",
        peer: "",
        check: |world| {
            let threads = world.threads_of_server()?;
            let (rss, dir) = (machine::rss_mib(world.site()?.server.pid())?, world.setting.model_dir()?);
            let model_mib = std::fs::metadata(dir.join("model.safetensors"))?.len() as f64 / 1_048_576.0;
            Ok(Verdict::new(
                threads > 1 && rss < 2.5 * model_mib + 64.0,
                format!(
                    "{threads} threads share one copy of the model: {rss:.0} MiB resident with a model of {model_mib:.0} MiB"
                ),
            ))
        },
    },
    Row {
        id: "5.3-search-endpoint",
        article: "GET /search?q=&k=5 -> {query, results}",
        peer: "",
        check: |world| {
            let knowledge = world.knowledge()?;
            let reply = knowledge.site.get("/search?q=reset%20password")?.expect(200)?;
            let count = reply.body["results"].as_array().map_or(0, Vec::len);
            Ok(Verdict::new(
                reply.body["query"] == "reset password" && count == 5 && reply.body["took_ms"].is_number(),
                format!("query echoed, {count} results without k, took_ms {}", reply.body["took_ms"]),
            ))
        },
    },
    Row {
        id: "5.3-bind-all-interfaces",
        article: "uvicorn.run(host=\"0.0.0.0\", port=8000): open to everybody",
        peer: "Redis and the endpoint without a password",
        check: bind_all,
    },
    Row {
        id: "5.3-workers",
        article: "workers=2 maximises CPU utilisation",
        peer: "134 a second on 2 cores against 55 alone [stack]",
        check: |world| {
            if machine::cores() < 2 {
                return Ok(Verdict::not_yet("this machine has one core"));
            }
            let one = world.in_process_rate(1)?;
            let two = world.in_process_rate(2)?;
            Ok(Verdict::new(
                two >= 1.7 * one,
                format!(
                    "embedding by 1 and 2 threads: {one:.0} and {two:.0} queries/s, {:.2} times (demanded: 1.7)",
                    two / one
                ),
            ))
        },
    },
    Row {
        id: "5.3-10k-qps-on-8-cores",
        article: "> 10 k QPS on a modest 8-core machine: 1,250 a core",
        peer: "67 a core [stack]",
        check: |world| {
            let loaded = world.loaded()?;
            Ok(Verdict::new(
                loaded.outcome.qps >= 1250.0,
                format!(
                    "{:.0} a second on one core at p99 <= 22 ms, text to JSON ({})",
                    loaded.outcome.qps,
                    world.scale()
                ),
            ))
        },
    },
];

/// Open-loop load on the packages with so many connections.
fn flood(world: &mut World<'_>, connections: usize, rate: f64) -> Result<open_loop::Outcome> {
    let bench = world.packages()?;
    let usual = std::mem::replace(bench.connections_mut(), connections);
    let measured = bench.step(rate);
    *bench.connections_mut() = usual;
    Ok(measured?.outcome)
}

/// Asks /healthz while 32 connections search without a pause.
fn health_under_load(world: &mut World<'_>) -> Result<Verdict> {
    let bench = world.packages()?;
    let queries = bench.fresh(3200)?;
    let url = bench.server().url("");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let pinned = bench.pinned()?;
    let (health, searched) = std::thread::scope(|scope| {
        let workers: Vec<_> = queries
            .chunks(100)
            .map(|queries| {
                let (url, stop) = (&url, &stop);
                scope.spawn(move || {
                    let agent = site::agent();
                    let mut answered = 0;
                    for query in queries.iter().cycle() {
                        if stop.load(std::sync::atomic::Ordering::Relaxed) {
                            break;
                        }
                        let path = format!("{url}/search?k=5&q={}", open_loop::encode(query));
                        answered += usize::from(
                            site::call(&agent, "GET", &path, None).is_ok_and(|reply| reply.status == 200),
                        );
                    }
                    answered
                })
            })
            .collect();
        let agent = site::agent();
        let started = Instant::now();
        let mut times = Vec::new();
        let mut failure = None;
        while started.elapsed() < Duration::from_secs(3) {
            match site::call(&agent, "GET", &format!("{url}/healthz"), None)
                .and_then(|reply| reply.expect(200))
            {
                Ok(reply) => times.push(reply.took.as_secs_f64() * 1e3),
                Err(error) => failure = Some(error),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let searched: usize = workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum();
        (failure.map_or(Ok(Sample::new(times)), Err), searched)
    });
    drop(pinned);
    let health = health?;
    let alive = bench.server_is_running()?;
    Ok(Verdict::new(
        alive && searched > 0 && health.quantile(0.99) < 50.0,
        format!(
            "/healthz p50 {:.1}, p99 {:.1} ms while 32 connections search ({searched} answered in 3 s, one core for all); demanded p99 < 50 ms",
            health.median(),
            health.quantile(0.99)
        ),
    ))
}

/// Without a key the server refuses to listen beyond the loopback interface; with one it asks for it.
fn bind_all(world: &mut World<'_>) -> Result<Verdict> {
    let launch = world.launch("open")?;
    let mut child = Command::new(server::binary()?)
        .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(&launch.data_dir)
        .arg("--models-dir")
        .arg(&launch.models_dir)
        .env_remove("NEARFIELD_SHARED")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > Duration::from_secs(20) {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut told = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut told)?;
    }
    let refused = status.is_some_and(|status| !status.success());
    let mut keyed = world.launch("keyed")?;
    keyed.arguments = vec!["--api-key".to_owned(), "0123456789abcdef0123".to_owned()];
    let site = site::Site::start(&keyed)?;
    let without = site.get("/collections")?.status;
    drop(site);
    let told = told.lines().last().unwrap_or("nothing said").to_owned();
    Ok(Verdict::new(
        refused && told.contains("api-key") && without == 401,
        format!("without a key refused: {refused} ({told}); with one, a request that lacks it: {without}"),
    ))
}

impl World<'_> {
    fn threads_of_server(&mut self) -> Result<usize> {
        // A first collection with embedding makes sure that the model is loaded.
        let site = self.site()?;
        site.drop("threads")?;
        site.put("/collections/threads", &json!({}))?.expect(201)?;
        site.write("threads", &[json!({"id": "a", "content": "one text to embed"})])?;
        let path = format!("/proc/{}/task", site.server.pid());
        Ok(std::fs::read_dir(&path).with_context(|| format!("read {path}"))?.count())
    }

    /// Short queries embedded a second by so many threads of this process.
    fn in_process_rate(&mut self, threads: usize) -> Result<f64> {
        let model = self.setting.model()?;
        let queries = crate::corpus::queries(&self.setting.source.packages_queries())?;
        let length = Duration::from_secs(2);
        let started = Instant::now();
        let total: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (model, queries) = (&model, &queries);
                    scope.spawn(move || {
                        let mut count = 0;
                        for query in queries.iter().skip(thread).step_by(threads).cycle() {
                            if started.elapsed() >= length {
                                break;
                            }
                            std::hint::black_box(model.embed(&[model.tokenize(query)], ComputeType::F32));
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
        });
        Ok(total as f64 / length.as_secs_f64())
    }
}
