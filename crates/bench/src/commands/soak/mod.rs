//! `soak`: hours of mixed load on the real server (text searches, inserts, updates, deletes, expiring documents,
//! collections created and dropped) and the resources it uses meanwhile.

mod resources;
mod writer;

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::{
    resources::{ResourceUsage, slope_per_minute},
    writer::{WriteCounts, Writer},
};
use crate::{
    corpus,
    global_options::GlobalOptions,
    machine,
    open_loop::{self, Step, encode},
    report::{Format, Report, Row},
    sample::{Sample, median},
    server::{Launch, Server},
};

/// Arguments of `soak`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SoakArguments {
    /// Length of the run in minutes
    #[arg(long, default_value_t = 120.0)]
    minutes: f64,
    /// Minutes excluded from the summary
    #[arg(long, default_value_t = 10.0)]
    warm_up_minutes: f64,
    /// Permanent documents, repeatedly overwritten and deleted; embedded by the server
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    documents: usize,
    /// Offered searches per second
    #[arg(long, default_value_t = 50.0)]
    qps: f64,
    /// Documents written per second; some expire, some are deleted
    #[arg(long, default_value_t = 20.0)]
    writes: f64,
    /// Length in seconds of a window; one row is printed per window
    #[arg(long, default_value_t = 60.0)]
    window_s: f64,
    /// Cores of the server [default: all]
    #[arg(long, value_delimiter = ',')]
    server_cores: Vec<usize>,
    /// Additional argument of `nearfield serve`; may be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    serve_with: Vec<String>,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A window: the latency of its searches and the server's resources at its end.
struct Window {
    minute: f64,
    p99_ms: f64,
    usage: ResourceUsage,
}

/// Measures and prints.
pub(crate) fn run(arguments: &SoakArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let documents = corpus::documents(&global.data.packages()?, 2 * arguments.documents)?;
    let queries = corpus::queries(&global.data.package_queries()?)?;
    let dir = global.cache_dir.join("soak");
    // The data of an earlier run would be measured too.
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", dir.display()));
        }
        _ => fs::create_dir_all(&dir)?,
    }
    let launch = Launch {
        data_dir: dir.join("data"),
        models_dir: global.models_dir()?,
        cores: arguments.server_cores.clone(),
        arguments: arguments.serve_with.clone(),
    };
    let mut server = Server::start(&launch)?;
    let writer = Writer::new(&server, &documents, arguments.documents, arguments.seed);
    writer.fill()?;
    let stopping = AtomicBool::new(false);
    let write_error: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let windows = std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(error) = writer.run(arguments.writes, &stopping) {
                *write_error.lock().expect("the lock is not poisoned") = Some(error);
            }
        });
        let measured = measure(arguments, &queries, &mut server, &launch, &writer, &write_error, format);
        stopping.store(true, Ordering::Relaxed);
        measured
    })?;
    if let Some(error) = write_error.into_inner().expect("the lock is not poisoned") {
        return Err(error.context("while writing"));
    }
    summary(arguments, &windows, &writer.counts(), format)
}

/// Searches window by window until the time is over or a write fails; prints one row per window.
fn measure(
    arguments: &SoakArguments,
    queries: &[String],
    server: &mut Server,
    launch: &Launch,
    writer: &Writer<'_>,
    write_error: &Mutex<Option<anyhow::Error>>,
    format: Format,
) -> Result<Vec<Window>> {
    let mut report = Report::new(format, "soak");
    let mut windows = Vec::new();
    let started = Instant::now();
    let address = server.address;
    let mut requests = queries.iter().cycle().map(|query| {
        open_loop::get_request(
            address,
            &format!("/search?collection={}&k=10&q={}", writer::NAME, encode(query)),
        )
    });
    while started.elapsed().as_secs_f64() < arguments.minutes * 60.0 {
        let cpu_s = machine::cpu_seconds(server.pid())?;
        let began = Instant::now();
        let step = Step {
            rate: arguments.qps,
            duration: Duration::from_secs_f64(arguments.window_s),
            warm_up: Duration::ZERO,
            grace: Duration::from_secs(10),
            connections: 64,
            seed: arguments.seed + windows.len() as u64,
        };
        let outcome = open_loop::run(address, &step, &mut requests)?;
        if write_error.lock().expect("the lock is not poisoned").is_some() {
            break;
        }
        if !server.is_running()? {
            bail!("the server exited: {}", server.log());
        }
        let usage = ResourceUsage::of(server, &launch.data_dir, writer)?;
        let (p50_ms, p99_ms) = (outcome.latency_ms.median(), outcome.latency_ms.quantile(0.99));
        let minute = started.elapsed().as_secs_f64() / 60.0;
        let cpu_pct = (machine::cpu_seconds(server.pid())? - cpu_s) / began.elapsed().as_secs_f64() * 100.0;
        report.push(
            Row::new()
                .with_rounded("minute", minute, 1)
                .with_rounded("searches_per_s", outcome.qps, 1)
                .with("errors", outcome.errors_text())
                .with_rounded("p50_ms", p50_ms, 2)
                .with_rounded("p99_ms", p99_ms, 2)
                .with_rounded("cpu_pct", cpu_pct, 0)
                .with_rounded("rss_mib", usage.rss_mib, 1)
                .with("descriptors", usage.descriptors)
                .with("threads", usage.threads)
                .with("documents", usage.documents)
                .with_rounded("disk_mib", usage.disk_mib, 1)
                .with_rounded("disk_of_live", usage.disk_of_live, 2),
        )?;
        windows.push(Window { minute, p99_ms, usage });
    }
    report.finish()?;
    Ok(windows)
}

/// Prints the whole run as one row.
fn summary(
    arguments: &SoakArguments,
    windows: &[Window],
    counts: &WriteCounts,
    format: Format,
) -> Result<()> {
    let windows: Vec<&Window> =
        windows.iter().filter(|window| window.minute > arguments.warm_up_minutes).collect();
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else {
        bail!("no window ended after the warm-up: increase --minutes or decrease --warm-up-minutes");
    };
    let points: Vec<(f64, f64)> =
        windows.iter().map(|window| (window.minute, window.usage.rss_mib)).collect();
    // The first and the last hour, or the halves of a shorter run.
    let hour = 60f64.min((last.minute - first.minute) / 2.0);
    let p99_of = |keep: &dyn Fn(f64) -> bool| {
        let windows = windows.iter().filter(|window| keep(window.minute));
        median(&windows.map(|window| window.p99_ms).collect::<Vec<_>>())
    };
    let first_hour = p99_of(&|minute| minute <= first.minute + hour);
    let last_hour = p99_of(&|minute| minute >= last.minute - hour);
    let range = |value: &dyn Fn(&ResourceUsage) -> usize| {
        let values: Vec<usize> = windows.iter().map(|window| value(&window.usage)).collect();
        format!("{} to {}", values.iter().min().unwrap_or(&0), values.iter().max().unwrap_or(&0))
    };
    let disk = Sample::new(windows.iter().map(|window| window.usage.disk_of_live).collect());
    let mut report = Report::new(format, "soak");
    report.push(
        Row::new()
            .with_rounded("minutes", last.minute, 1)
            .with("written", counts.written)
            .with("expiring", counts.expiring)
            .with("deleted", counts.deleted)
            .with("collections_dropped", counts.collections_dropped)
            .with("rejected", counts.rejected)
            .with_rounded("rss_slope_mib_per_min", slope_per_minute(&points), 3)
            .with("descriptors", range(&|usage| usage.descriptors))
            .with("threads", range(&|usage| usage.threads))
            .with_rounded("p99_ms_first_hour", first_hour, 2)
            .with_rounded("p99_ms_last_hour", last_hour, 2)
            .with_rounded("disk_of_live_max", disk.max(), 2)
            .with("seed", arguments.seed),
    )?;
    report.finish()
}
