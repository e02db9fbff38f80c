//! `serve`, text to documents through an in-process service, on one core and on two.

use std::{path::Path, time::Duration};

use anyhow::Result;
use nearfield::service::Service;

use super::{
    ServeArguments,
    in_process::{self, QueryCycle, Throughput},
};
use crate::{
    global_options::GlobalOptions,
    machine::{self, CorePin},
    report::{Format, Report, Row},
    sample::median,
};

/// Queries in flight per core.
const IN_FLIGHT: usize = 16;
/// Unmeasured load before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures and prints, alternating one core and two, `runs` times. The documents are in `data_dir`.
pub(super) fn run(
    arguments: &ServeArguments,
    global: &GlobalOptions,
    data_dir: &Path,
    queries: Vec<String>,
    format: Format,
) -> Result<()> {
    let queries = QueryCycle::new(queries, arguments.k);
    let counts: Vec<usize> = (1..=machine::cores().min(2)).collect();
    let mut throughputs: Vec<Vec<Throughput>> = vec![Vec::new(); counts.len()];
    let length = Duration::from_secs_f64(arguments.seconds);
    for run in 0..arguments.runs {
        for offset in 0..counts.len() {
            let position = (run + offset) % counts.len();
            let cores: Vec<usize> = (0..counts[position]).collect();
            let _pin = CorePin::to_cores(&cores)?;
            let config = in_process::config(cores.len(), data_dir, global)?;
            let service = Service::open(config)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let in_flight = IN_FLIGHT * cores.len();
            in_process::measure(&runtime, &service, &queries, in_flight, WARM_UP.min(length))?;
            let measured = in_process::measure(&runtime, &service, &queries, in_flight, length)?;
            throughputs[position].push(measured);
            service.close();
        }
        eprintln!("round {} of {} on one core and on two done", run + 1, arguments.runs);
    }
    let qps = |runs: &[Throughput]| median(&runs.iter().map(|run| run.qps).collect::<Vec<_>>());
    let mut report = Report::new(format, "serve cores");
    for (count, runs) in counts.iter().zip(&throughputs) {
        for (run, throughput) in runs.iter().enumerate() {
            report.push(
                Row::new()
                    .with("documents", arguments.documents)
                    .with("quantization", arguments.quantization.name())
                    .with("cores", *count)
                    .with("run", run + 1)
                    .with("in_flight", IN_FLIGHT * count)
                    .with_rounded("qps", throughput.qps, 0)
                    .with_rounded("cpu_us_per_query", throughput.cpu_us, 0)
                    .with_rounded("median_qps", qps(runs), 0)
                    .with_rounded("times_one_core", qps(runs) / qps(&throughputs[0]), 2),
            )?;
        }
    }
    report.finish()
}
