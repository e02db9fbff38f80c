//! `soak`: the real server for hours under everything at once (searches of text, writes, updates, deletes,
//! documents that expire, collections that come and go), and what it takes of the machine meanwhile.

mod churn;
mod watch;

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
    churn::{Churn, Counts},
    watch::{Level, slope_per_minute},
};
use crate::{
    corpus, machine,
    open_loop::{self, Step, encode},
    report::{Format, Report, Row},
    sample::{Sample, median},
    server::{Launch, Server},
    setting::Setting,
};

/// Arguments of `soak`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long
    #[arg(long, default_value_t = 120.0)]
    minutes: f64,
    /// Minutes before memory counts as settled
    #[arg(long, default_value_t = 10.0)]
    warm_up_minutes: f64,
    /// Documents that stand, rewritten and deleted over and over; embedded by the server
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    documents: usize,
    /// Searches offered a second
    #[arg(long, default_value_t = 50.0)]
    qps: f64,
    /// Documents written a second; some expire, some are deleted again
    #[arg(long, default_value_t = 20.0)]
    writes: f64,
    /// Length of a window, a row each
    #[arg(long, default_value_t = 60.0)]
    window_s: f64,
    /// Cores of the server; all, if none are given
    #[arg(long, value_delimiter = ',')]
    server_cores: Vec<usize>,
    /// Further arguments of `nearfield serve`
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    serve_with: Vec<String>,
    /// Seed of everything drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A window: what the searches saw and what the server held at its end.
struct Window {
    minute: f64,
    p99_ms: f64,
    level: Level,
}

/// Soaks and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let documents = corpus::documents(&setting.source.packages(), 2 * arguments.documents)?;
    let queries = corpus::queries(&setting.source.packages_queries())?;
    let dir = setting.cache_dir.join("soak");
    // What an earlier run left would be measured too.
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", dir.display()));
        }
        _ => fs::create_dir_all(&dir)?,
    }
    let launch = Launch {
        data_dir: dir.join("data"),
        models_dir: setting.models_dir()?,
        cores: arguments.server_cores.clone(),
        arguments: arguments.serve_with.clone(),
    };
    let mut server = Server::start(&launch)?;
    let churn = Churn::new(&server, &documents, arguments.documents, arguments.seed);
    churn.fill()?;
    let stopping = AtomicBool::new(false);
    let trouble: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let windows = std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(error) = churn.run(arguments.writes, &stopping) {
                *trouble.lock().expect("nobody panics holding it") = Some(error);
            }
        });
        let measured = measure(arguments, &queries, &mut server, &launch, &churn, &trouble, format);
        stopping.store(true, Ordering::Relaxed);
        measured
    })?;
    if let Some(error) = trouble.into_inner().expect("nobody panics holding it") {
        return Err(error.context("while writing"));
    }
    summary(arguments, &windows, &churn.counts(), format)
}

/// Searches window by window until the time is over or the writes fail; a row each.
fn measure(
    arguments: &Arguments,
    queries: &[String],
    server: &mut Server,
    launch: &Launch,
    churn: &Churn<'_>,
    trouble: &Mutex<Option<anyhow::Error>>,
    format: Format,
) -> Result<Vec<Window>> {
    let mut report = Report::new(format, "soak");
    let mut windows = Vec::new();
    let started = Instant::now();
    let address = server.address;
    let mut asked = queries.iter().cycle().map(|query| {
        open_loop::get_request(
            address,
            &format!("/search?collection={}&k=10&q={}", churn::NAME, encode(query)),
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
        let outcome = open_loop::run(address, &step, &mut asked)?;
        if trouble.lock().expect("nobody panics holding it").is_some() {
            break;
        }
        if !server.is_running()? {
            bail!("the server ended: {}", server.log());
        }
        let level = Level::of(server, &launch.data_dir, churn)?;
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
                .with_rounded("rss_mib", level.rss_mib, 1)
                .with("descriptors", level.descriptors)
                .with("threads", level.threads)
                .with("documents", level.documents)
                .with_rounded("disk_mib", level.disk_mib, 1)
                .with_rounded("disk_of_live", level.disk_of_live, 2),
        )?;
        windows.push(Window { minute, p99_ms, level });
    }
    report.finish()?;
    Ok(windows)
}

/// The whole run in one row.
fn summary(arguments: &Arguments, windows: &[Window], counts: &Counts, format: Format) -> Result<()> {
    let settled: Vec<&Window> =
        windows.iter().filter(|window| window.minute > arguments.warm_up_minutes).collect();
    let (Some(first), Some(last)) = (settled.first(), settled.last()) else {
        bail!("no window ended after the warm-up: run longer");
    };
    let points: Vec<(f64, f64)> =
        settled.iter().map(|window| (window.minute, window.level.rss_mib)).collect();
    // The first and the last hour, or halves of a shorter run.
    let hour = 60f64.min((last.minute - first.minute) / 2.0);
    let p99_of = |keep: &dyn Fn(f64) -> bool| {
        let windows = settled.iter().filter(|window| keep(window.minute));
        median(&windows.map(|window| window.p99_ms).collect::<Vec<_>>())
    };
    let first_hour = p99_of(&|minute| minute <= first.minute + hour);
    let last_hour = p99_of(&|minute| minute >= last.minute - hour);
    let range = |value: &dyn Fn(&Level) -> usize| {
        let values: Vec<usize> = settled.iter().map(|window| value(&window.level)).collect();
        format!("{} to {}", values.iter().min().unwrap_or(&0), values.iter().max().unwrap_or(&0))
    };
    let disk = Sample::new(settled.iter().map(|window| window.level.disk_of_live).collect());
    let mut report = Report::new(format, "soak");
    report.push(
        Row::new()
            .with_rounded("minutes", last.minute, 1)
            .with("written", counts.written)
            .with("expiring", counts.expiring)
            .with("deleted", counts.deleted)
            .with("collections_dropped", counts.collections)
            .with("refused", counts.refused)
            .with_rounded("rss_slope_mib_per_min", slope_per_minute(&points), 3)
            .with("descriptors", range(&|level| level.descriptors))
            .with("threads", range(&|level| level.threads))
            .with_rounded("p99_ms_first_hour", first_hour, 2)
            .with_rounded("p99_ms_last_hour", last_hour, 2)
            .with_rounded("disk_of_live_max", disk.max(), 2)
            .with("seed", arguments.seed),
    )?;
    report.finish()
}
