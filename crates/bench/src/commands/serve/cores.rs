//! `serve`, the service in this process on one core and on two, text to documents: how much a second
//! core adds.

use std::{path::Path, time::Duration};

use anyhow::Result;
use nearfield::service::{Config, Service};

use super::{
    Arguments,
    in_process::{Asked, Rate, rate},
};
use crate::{
    machine::{self, Pinned},
    report::{Format, Report, Row},
    sample::median,
    setting::Setting,
};

/// Queries under way at once, for each core.
const IN_FLIGHT: usize = 16;
/// Before what counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures and prints; one core and two take turns, `runs` times. The documents are in `data_dir`.
pub(super) fn run(
    arguments: &Arguments,
    setting: &Setting,
    data_dir: &Path,
    queries: Vec<String>,
    format: Format,
) -> Result<()> {
    let asked = Asked::new(queries, arguments.k);
    let counts: Vec<usize> = (1..=machine::cores().min(2)).collect();
    let mut rates: Vec<Vec<Rate>> = vec![Vec::new(); counts.len()];
    let length = Duration::from_secs_f64(arguments.seconds);
    for run in 0..arguments.runs {
        for turn in 0..counts.len() {
            let place = (run + turn) % counts.len();
            let cores: Vec<usize> = (0..counts[place]).collect();
            let _pinned = Pinned::to_any(&cores)?;
            let config = Config { workers: cores.len(), query_cache_bytes: 0, ..setting.service(data_dir)? };
            let service = Service::open(config)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let in_flight = IN_FLIGHT * cores.len();
            rate(&runtime, &service, &asked, in_flight, WARM_UP)?;
            rates[place].push(rate(&runtime, &service, &asked, in_flight, length)?);
            service.close();
        }
        eprintln!("round {} of {} of one core and two done", run + 1, arguments.runs);
    }
    let qps = |rates: &[Rate]| median(&rates.iter().map(|rate| rate.qps).collect::<Vec<_>>());
    let mut report = Report::new(format, "serve cores");
    for (count, of_count) in counts.iter().zip(&rates) {
        for (run, rate) in of_count.iter().enumerate() {
            report.push(
                Row::new()
                    .with("documents", arguments.documents)
                    .with("quantization", arguments.quantization.name())
                    .with("cores", *count)
                    .with("run", run + 1)
                    .with("in_flight", IN_FLIGHT * count)
                    .with_rounded("qps", rate.qps, 0)
                    .with_rounded("cpu_us_per_query", rate.cpu_us, 0)
                    .with_rounded("median_qps", qps(of_count), 0)
                    .with_rounded("times_one_core", qps(of_count) / qps(&rates[0]), 2),
            )?;
        }
    }
    report.finish()
}
