//! `overload`: the real server under open-loop load of ten times the searches it can answer. Measures accepted and
//! rejected searches, health checks, recovery afterwards, and searches while documents are written at full speed.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    corpus,
    global_options::GlobalOptions,
    machine::{self, CorePin},
    open_loop::{self, Outcome, Step, encode},
    report::{Format, Report, Row},
    sample::Sample,
    server::{Launch, Server},
};

/// Arguments of `overload`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OverloadArguments {
    /// Documents, embedded by the server
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    documents: usize,
    /// 99th percentile in ms up to which a rate counts as within the server's capacity
    #[arg(long, default_value_t = 50.0)]
    budget_ms: f64,
    /// Searches per second at which the search for the capacity starts
    #[arg(long, default_value_t = 200.0)]
    from: f64,
    /// Offered load as a multiple of the capacity
    #[arg(long, default_value_t = 10.0)]
    times: f64,
    /// Length of the overload in seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Length in seconds of each other step, such as those that find the capacity
    #[arg(long, default_value_t = 5.0)]
    step_seconds: f64,
    /// Seconds between the end of the overload and the measurement of recovery
    #[arg(long, default_value_t = 4.0, hide = true)]
    recovery_seconds: f64,
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

/// Offered load, as a share of the capacity, while documents are written.
const LIGHT: f64 = 0.3;

/// The collection's name.
const NAME: &str = "overload";

/// Measures and prints.
pub(crate) fn run(arguments: &OverloadArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let documents = corpus::documents(&global.data.packages()?, arguments.documents)?;
    let package_queries = corpus::queries(&global.data.package_queries()?)?;
    let dir = global.cache_dir.join("overload");
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(&dir)?,
    }
    let server = Server::start(&Launch {
        data_dir: dir.join("data"),
        models_dir: global.models_dir()?,
        cores: arguments.server_cores.clone(),
        // Repeated queries must not be answered from the cache.
        arguments: vec!["--query-cache-mib".to_owned(), "0".to_owned()],
    })?;
    fill(&server, &documents)?;
    let _pin = CorePin::to_core(arguments.client_core)?;
    let address = server.address;
    let mut queries = package_queries.iter().cycle().map(|query| {
        open_loop::get_request(address, &format!("/search?collection={NAME}&k=10&q={}", encode(query)))
    });
    let mut seed = arguments.seed;
    let mut step = |rate: f64, seconds: f64| -> Result<Outcome> {
        seed += 1;
        // Gives the server time to notice that the connections of the previous step are closed.
        std::thread::sleep(Duration::from_secs_f64(arguments.step_seconds / 5.0));
        let step = Step {
            rate,
            duration: Duration::from_secs_f64(seconds),
            warm_up: Duration::from_secs_f64(arguments.step_seconds / 5.0),
            grace: Duration::from_secs(10),
            connections: arguments.connections,
            seed,
        };
        open_loop::run(address, &step, &mut queries)
    };
    // One success in two attempts is enough, since other processes may disturb a step.
    let mut is_within_capacity = |rate: f64| -> Result<Option<Outcome>> {
        for _ in 0..2 {
            let outcome = step(rate, arguments.step_seconds)?;
            let few_failed = outcome.failed() * 1000 <= outcome.due;
            if few_failed && outcome.latency_ms.quantile(0.99) <= arguments.budget_ms {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    };
    let mut capacity = arguments.from;
    let mut at_capacity = is_within_capacity(capacity)?.with_context(|| {
        format!("{capacity} searches per second exceed the capacity: pass a lower --from")
    })?;
    for factor in [1.25, 1.08] {
        while let Some(outcome) = is_within_capacity(capacity * factor)? {
            (capacity, at_capacity) = (capacity * factor, outcome);
        }
    }
    let rss_before = machine::rss_mib(server.pid())?;
    let stop = AtomicBool::new(false);
    let (overload, health) = std::thread::scope(|scope| -> Result<_> {
        let health = scope.spawn(|| watch_health(&server, &stop));
        let overload = step(arguments.times * capacity, arguments.seconds);
        stop.store(true, Ordering::Relaxed);
        let health = health.join().map_err(|_| anyhow::anyhow!("the health check thread panicked"))??;
        Ok((overload?, health))
    })?;
    let rss_after = machine::rss_mib(server.pid())?;
    std::thread::sleep(Duration::from_secs_f64(arguments.recovery_seconds));
    let after = step(capacity / 2.0, arguments.step_seconds)?;
    let light = step(capacity * LIGHT, 2.0 * arguments.step_seconds)?;
    let stop = AtomicBool::new(false);
    let (loading, written) = std::thread::scope(|scope| -> Result<_> {
        let writer = scope.spawn(|| write_until_stopped(&server, &documents, &stop));
        let loading = step(capacity * LIGHT, 4.0 * arguments.step_seconds);
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow::anyhow!("the writer thread panicked"))??;
        Ok((loading?, written))
    })?;
    let p99 = |outcome: &Outcome| outcome.latency_ms.quantile(0.99);
    let rejected: usize = [429, 503].iter().filter_map(|status| overload.errors.get(status)).sum();
    let mut report = Report::new(format, "overload");
    report.push(
        Row::new()
            .with_rounded("capacity_per_s", capacity, 0)
            .with_rounded("p99_ms_at_capacity", p99(&at_capacity), 1)
            .with_rounded("offered_per_s", arguments.times * capacity, 0)
            .with_rounded("answered_per_s", overload.qps, 0)
            .with_rounded("goodput_of_capacity", overload.qps / capacity, 2)
            .with_rounded("p50_ms_answered", overload.latency_ms.median(), 1)
            .with_rounded("p99_ms_answered", p99(&overload), 1)
            .with("rejected", rejected)
            .with_rounded("p50_ms_rejected", overload.rejected_ms.median(), 1)
            .with_rounded("p99_ms_rejected", overload.rejected_ms.quantile(0.99), 1)
            .with("failed_otherwise", overload.failed() - rejected)
            .with("errors", overload.errors_text())
            .with_rounded("health_p99_ms", health.quantile(0.99), 1)
            .with_rounded("rss_mib_before", rss_before, 0)
            .with_rounded("rss_mib_after", rss_after, 0)
            .with_rounded("p99_ms_half_capacity_after", p99(&after), 1)
            .with("errors_after", after.errors_text())
            .with_rounded("p99_ms_light", p99(&light), 1)
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

/// Writes the documents repeatedly under new ids, as fast as the server accepts them, until `stop` is set; returns the
/// number of documents written.
fn write_until_stopped(server: &Server, documents: &[corpus::Document], stop: &AtomicBool) -> Result<usize> {
    let agent = ureq::Agent::new_with_defaults();
    let mut written = 0;
    for round in 1.. {
        for batch in documents.chunks(100) {
            if stop.load(Ordering::Relaxed) {
                return Ok(written);
            }
            write(&agent, server, &format!("{round}-"), batch)?;
            written += batch.len();
        }
    }
    unreachable!("the range of rounds is endless")
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

/// Requests /healthz on new connections until `stop` is set; returns the milliseconds of each response.
fn watch_health(server: &Server, stop: &AtomicBool) -> Result<Sample> {
    let mut ms = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let reply = ureq::get(server.url("/healthz")).call()?;
        ensure!(reply.status() == 200, "/healthz: {}", reply.status());
        ms.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Sample::new(ms))
}
