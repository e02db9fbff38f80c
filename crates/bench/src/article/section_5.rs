//! Section 5: concurrency for high throughput.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use embed::ComputeType;
use serde_json::json;

use super::{Claim, Verdict, api, fixtures::Fixtures};
use crate::{machine, open_loop, sample::Sample, server};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "5-thousands-concurrent",
        article: "the service must handle thousands of concurrent queries",
        peer: "8 queries per second under 32 connections as printed [stack]",
        check: |fixtures| {
            let outcome = open_loop_load(fixtures, 500, 2000.0)?;
            let answered = outcome.due - outcome.failed();
            // Excess load is rejected with 503 or waits; any other status is a failure.
            let failures: usize =
                outcome.errors.iter().filter(|(status, _)| **status != 503).map(|(_, count)| count).sum();
            let is_running = fixtures.packages()?.server_is_running()?;
            Ok(Verdict::new(
                is_running && failures == 0 && answered > 0,
                format!(
                    "2,000 per second offered over 500 connections: {answered} of {} answered, errors: {}; the process is running: {is_running}",
                    outcome.due,
                    outcome.errors_text()
                ),
            ))
        },
    },
    Claim {
        id: "5.1-async-connections",
        article: "AsyncIO + redis.asyncio: many connections on one event loop",
        peer: "",
        check: |fixtures| {
            let outcome = open_loop_load(fixtures, 200, 100.0)?;
            Ok(Verdict::new(
                outcome.failed() == 0,
                format!(
                    "200 open connections, 100 queries per second: {} of {} answered, p99 {:.1} ms",
                    outcome.due - outcome.failed(),
                    outcome.due,
                    outcome.latency_ms.quantile(0.99)
                ),
            ))
        },
    },
    Claim {
        id: "5.2-offload-cpu-work",
        article: "embedding must not block the event loop: offload it",
        peer: "embed_text in async_search blocks the loop: 8 per second under 32 connections [stack]",
        check: health_under_load,
    },
    Claim {
        id: "5.2-process-pool",
        article: "ProcessPoolExecutor(max_workers=4): one copy of the model per process",
        peer: "",
        check: |fixtures| {
            let threads = fixtures.threads_of_server()?;
            let (rss, dir) = (machine::rss_mib(fixtures.api()?.server.pid())?, fixtures.global.model_dir()?);
            let model_mib = std::fs::metadata(dir.join("model.safetensors"))?.len() as f64 / 1_048_576.0;
            Ok(Verdict::new(
                threads > 1 && rss < 2.5 * model_mib + 64.0,
                format!(
                    "{threads} threads share one copy of the model: {rss:.0} MiB resident with a model of {model_mib:.0} MiB"
                ),
            ))
        },
    },
    Claim {
        id: "5.3-search-endpoint",
        article: "GET /search?q=&k=5 -> {query, results}",
        peer: "",
        check: |fixtures| {
            let knowledge = fixtures.knowledge_base()?;
            let response = knowledge.api.get("/search?q=reset%20password")?.expect(200)?;
            let count = response.body["results"].as_array().map_or(0, Vec::len);
            Ok(Verdict::new(
                response.body["query"] == "reset password"
                    && count == 5
                    && response.body["took_ms"].is_number(),
                format!("query echoed, {count} results by default, took_ms {}", response.body["took_ms"]),
            ))
        },
    },
    Claim {
        id: "5.3-bind-all-interfaces",
        article: "uvicorn.run(host=\"0.0.0.0\", port=8000): open to everyone",
        peer: "Redis and the endpoint without a password",
        check: bind_all,
    },
    Claim {
        id: "5.3-workers",
        article: "workers=2 maximises CPU utilisation",
        peer: "134 per second on 2 cores, 55 on one [stack]",
        check: |fixtures| {
            if machine::cores() < 2 {
                return Ok(Verdict::not_checked("this machine has only one core"));
            }
            let one = fixtures.in_process_rate(1)?;
            let two = fixtures.in_process_rate(2)?;
            Ok(Verdict::new(
                two >= 1.7 * one,
                format!(
                    "embedding by 1 and 2 threads: {one:.0} and {two:.0} queries/s, {:.2} times (required: 1.7)",
                    two / one
                ),
            ))
        },
    },
    Claim {
        id: "5.3-10k-qps-on-8-cores",
        article: "> 10 k QPS on a modest 8-core machine: 1,250 per core",
        peer: "67 per core [stack]",
        check: |fixtures| {
            let step = fixtures.at_highest_rate()?;
            Ok(Verdict::new(
                step.outcome.qps >= 1250.0,
                format!(
                    "{:.0} per second on one core at p99 <= 22 ms, text to JSON ({})",
                    step.outcome.qps,
                    fixtures.scale()
                ),
            ))
        },
    },
];

/// Open-loop load on the packages with a given number of connections.
fn open_loop_load(fixtures: &mut Fixtures<'_>, connections: usize, rate: f64) -> Result<open_loop::Outcome> {
    let bench = fixtures.packages()?;
    let default = std::mem::replace(bench.connections_mut(), connections);
    let measured = bench.step(rate);
    *bench.connections_mut() = default;
    Ok(measured?.outcome)
}

/// Latency of /healthz while 32 connections search without pause.
fn health_under_load(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let bench = fixtures.packages()?;
    let queries = bench.unused_queries(3200)?;
    let url = bench.server().url("");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let pin = bench.pin_client()?;
    let (health, searched) = std::thread::scope(|scope| {
        let workers: Vec<_> = queries
            .chunks(100)
            .map(|queries| {
                let (url, stop) = (&url, &stop);
                scope.spawn(move || {
                    let agent = api::agent();
                    let mut answered = 0;
                    for query in queries.iter().cycle() {
                        if stop.load(std::sync::atomic::Ordering::Relaxed) {
                            break;
                        }
                        let path = format!("{url}/search?k=5&q={}", open_loop::encode(query));
                        answered += usize::from(
                            api::call(&agent, "GET", &path, None)
                                .is_ok_and(|response| response.status == 200),
                        );
                    }
                    answered
                })
            })
            .collect();
        let agent = api::agent();
        let started = Instant::now();
        let mut times = Vec::new();
        let mut failure = None;
        while started.elapsed() < Duration::from_secs(3) {
            match api::call(&agent, "GET", &format!("{url}/healthz"), None)
                .and_then(|response| response.expect(200))
            {
                Ok(response) => times.push(response.took.as_secs_f64() * 1e3),
                Err(error) => failure = Some(error),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let searched: usize = workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum();
        (failure.map_or(Ok(Sample::new(times)), Err), searched)
    });
    drop(pin);
    let health = health?;
    let is_running = bench.server_is_running()?;
    Ok(Verdict::new(
        is_running && searched > 0 && health.quantile(0.99) < 50.0,
        format!(
            "/healthz p50 {:.1}, p99 {:.1} ms while 32 connections search ({searched} answered in 3 s, all on one core); required: p99 < 50 ms",
            health.median(),
            health.quantile(0.99)
        ),
    ))
}

/// Without an API key the server refuses to listen on all interfaces; with one, it requires the key.
fn bind_all(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let launch = fixtures.launch("open")?;
    let mut child = Command::new(server::binary()?)
        .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(&launch.data_dir)
        .arg("--models-dir")
        .arg(&launch.models_dir)
        .env_remove("NEARFIELD_DATA")
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
    let mut errors = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut errors)?;
    }
    let is_refused = status.is_some_and(|status| !status.success());
    let mut keyed = fixtures.launch("keyed")?;
    keyed.arguments = vec!["--api-key".to_owned(), "0123456789abcdef0123".to_owned()];
    let api = api::Api::start(&keyed)?;
    let without = api.get("/collections")?.status;
    drop(api);
    let message = errors.lines().last().unwrap_or("no message").to_owned();
    Ok(Verdict::new(
        is_refused && message.contains("api-key") && without == 401,
        format!("refused without a key: {is_refused} ({message}); with one, a request without it: {without}"),
    ))
}

impl Fixtures<'_> {
    fn threads_of_server(&mut self) -> Result<usize> {
        // Writing to a collection with embedding loads the model.
        let api = self.api()?;
        api.drop_collection("threads")?;
        api.put("/collections/threads", &json!({}))?.expect(201)?;
        api.write("threads", &[json!({"id": "a", "content": "one text to embed"})])?;
        let path = format!("/proc/{}/task", api.server.pid());
        Ok(std::fs::read_dir(&path).with_context(|| format!("read {path}"))?.count())
    }

    /// Short queries embedded per second by `threads` threads of this process.
    fn in_process_rate(&mut self, threads: usize) -> Result<f64> {
        let model = self.global.model()?;
        let queries = crate::corpus::queries(&self.global.data.package_queries()?)?;
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
