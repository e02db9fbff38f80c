//! `overload`: the real server under ten times the searches it can answer, open loop, and what becomes of those it
//! takes, of those it refuses, of questions about health, of itself afterwards, and of searches while documents are
//! written at full speed.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    corpus,
    machine::{self, Pinned},
    open_loop::{self, Outcome, Step, encode},
    report::{Format, Report, Row},
    sample::Sample,
    server::{Launch, Server},
    setting::Setting,
};

/// Arguments of `overload`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Documents, embedded by the server
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    documents: usize,
    /// 99th percentile within which a rate counts as one the server has capacity for
    #[arg(long, default_value_t = 50.0)]
    budget_ms: f64,
    /// Searches a second from which the capacity is looked for
    #[arg(long, default_value_t = 200.0)]
    from: f64,
    /// Times the capacity that is offered
    #[arg(long, default_value_t = 10.0)]
    times: f64,
    /// Length of the flood
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Cores of the server
    #[arg(long, value_delimiter = ',', default_value = "0")]
    server_cores: Vec<usize>,
    /// Core of the load generator
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Connections of the load generator
    #[arg(long, default_value_t = 900)]
    connections: usize,
    /// Seed of queries and schedules
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The share of the capacity that is asked for while documents are written.
const LIGHT: f64 = 0.3;

/// The name of the collection.
const NAME: &str = "flooded";

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let documents = corpus::documents(&setting.source.packages(), arguments.documents)?;
    let given = corpus::queries(&setting.source.packages_queries())?;
    let dir = setting.cache_dir.join("overload");
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(&dir)?,
    }
    let server = Server::start(&Launch {
        data_dir: dir.join("data"),
        models_dir: setting.models_dir()?,
        cores: arguments.server_cores.clone(),
        // What was asked before would be answered from memory.
        arguments: vec!["--query-cache-mib".to_owned(), "0".to_owned()],
    })?;
    fill(&server, &documents)?;
    let _pinned = Pinned::to(arguments.client_core)?;
    let address = server.address;
    let mut queries = given.iter().cycle().map(|query| {
        open_loop::get_request(address, &format!("/search?collection={NAME}&k=10&q={}", encode(query)))
    });
    let mut seed = arguments.seed;
    let mut step = |rate: f64, seconds: f64| -> Result<Outcome> {
        seed += 1;
        // The server is to notice that the connections of the step before have gone.
        std::thread::sleep(Duration::from_secs(1));
        let step = Step {
            rate,
            duration: Duration::from_secs_f64(seconds),
            warm_up: Duration::from_secs(1),
            grace: Duration::from_secs(10),
            connections: arguments.connections,
            seed,
        };
        open_loop::run(address, &step, &mut queries)
    };
    // A rate counts if it goes well once in two times: other work on the machine is none of the server's doing.
    let mut goes_well = |rate: f64| -> Result<Option<Outcome>> {
        for _ in 0..2 {
            let outcome = step(rate, 5.0)?;
            let few = outcome.failed() * 1000 <= outcome.due;
            if few && outcome.latency_ms.quantile(0.99) <= arguments.budget_ms {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    };
    let mut capacity = arguments.from;
    let mut at_capacity = goes_well(capacity)?
        .with_context(|| format!("{capacity} searches a second are too many: give less with --from"))?;
    for factor in [1.25, 1.08] {
        while let Some(outcome) = goes_well(capacity * factor)? {
            (capacity, at_capacity) = (capacity * factor, outcome);
        }
    }
    let rss_before = machine::rss_mib(server.pid())?;
    let over = AtomicBool::new(false);
    let (flood, health) = std::thread::scope(|scope| -> Result<_> {
        let health = scope.spawn(|| watch_health(&server, &over));
        let flood = step(arguments.times * capacity, arguments.seconds);
        over.store(true, Ordering::Relaxed);
        let health = health.join().map_err(|_| anyhow::anyhow!("whoever watched health panicked"))??;
        Ok((flood?, health))
    })?;
    let rss_after = machine::rss_mib(server.pid())?;
    std::thread::sleep(Duration::from_secs(4));
    let after = step(capacity / 2.0, 5.0)?;
    let idle = step(capacity * LIGHT, 10.0)?;
    let over = AtomicBool::new(false);
    let (loading, written) = std::thread::scope(|scope| -> Result<_> {
        let writer = scope.spawn(|| write_on(&server, &documents, &over));
        let loading = step(capacity * LIGHT, 20.0);
        over.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow::anyhow!("whoever wrote panicked"))??;
        Ok((loading?, written))
    })?;
    let p99 = |outcome: &Outcome| outcome.latency_ms.quantile(0.99);
    let refused: usize = [429, 503].iter().filter_map(|status| flood.errors.get(status)).sum();
    let mut report = Report::new(format, "overload");
    report.push(
        Row::new()
            .with_rounded("capacity_per_s", capacity, 0)
            .with_rounded("p99_ms_at_capacity", p99(&at_capacity), 1)
            .with_rounded("offered_per_s", arguments.times * capacity, 0)
            .with_rounded("answered_per_s", flood.qps, 0)
            .with_rounded("goodput_of_capacity", flood.qps / capacity, 2)
            .with_rounded("p50_ms_answered", flood.latency_ms.median(), 1)
            .with_rounded("p99_ms_answered", p99(&flood), 1)
            .with("refused", refused)
            .with_rounded("p50_ms_refused", flood.refused_ms.median(), 1)
            .with_rounded("p99_ms_refused", flood.refused_ms.quantile(0.99), 1)
            .with("failed_otherwise", flood.failed() - refused)
            .with("answers", flood.errors_text())
            .with_rounded("health_p99_ms", health.quantile(0.99), 1)
            .with_rounded("rss_mib_before", rss_before, 0)
            .with_rounded("rss_mib_after", rss_after, 0)
            .with_rounded("p99_ms_half_capacity_after", p99(&after), 1)
            .with("errors_after", after.errors_text())
            .with_rounded("p99_ms_light", p99(&idle), 1)
            .with_rounded("p99_ms_light_while_writing", p99(&loading), 1)
            .with("errors_while_writing", loading.errors_text())
            .with("written_meanwhile", written),
    )?;
    report.finish()
}

fn fill(server: &Server, documents: &[corpus::Document]) -> Result<()> {
    let agent = ureq::Agent::new_with_defaults();
    send(&agent, server, "PUT", &format!("/collections/{NAME}"), "{}".to_owned())?;
    documents.chunks(100).try_for_each(|batch| write(&agent, server, "", batch))
}

/// Writes the documents again and again under other names, as fast as they are taken, until told to stop; how many.
fn write_on(server: &Server, documents: &[corpus::Document], over: &AtomicBool) -> Result<usize> {
    let agent = ureq::Agent::new_with_defaults();
    let mut written = 0;
    for round in 1.. {
        for batch in documents.chunks(100) {
            if over.load(Ordering::Relaxed) {
                return Ok(written);
            }
            write(&agent, server, &format!("{round}-"), batch)?;
            written += batch.len();
        }
    }
    unreachable!("rounds do not end by themselves")
}

fn write(agent: &ureq::Agent, server: &Server, prefix: &str, batch: &[corpus::Document]) -> Result<()> {
    let row = |document: &corpus::Document| json!({"id": format!("{prefix}{}", document.id), "content": document.text});
    let body = serde_json::Value::from(batch.iter().map(row).collect::<Vec<_>>()).to_string();
    send(agent, server, "POST", &format!("/collections/{NAME}/documents"), body)
}

fn send(agent: &ureq::Agent, server: &Server, method: &str, path: &str, body: String) -> Result<()> {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(server.url(path))
        .header("content-type", "application/json");
    let reply = agent.run(request.body(body)?).with_context(|| format!("{method} {path}"))?;
    ensure!(reply.status().is_success(), "{method} {path}: {}", reply.status());
    Ok(())
}

/// Asks for /healthz on new connections until told to stop; milliseconds of each answer.
fn watch_health(server: &Server, over: &AtomicBool) -> Result<Sample> {
    let mut ms = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        let reply = ureq::get(server.url("/healthz")).call()?;
        ensure!(reply.status() == 200, "/healthz: {}", reply.status());
        ms.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Sample::new(ms))
}
