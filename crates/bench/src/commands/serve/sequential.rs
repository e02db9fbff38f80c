//! `serve`, one query at a time: each is sent once the previous one is answered, over one persistent
//! connection.

use std::time::Instant;

use anyhow::Result;

use super::{ServeArguments, ServerBench};
use crate::{
    machine,
    open_loop::encode,
    report::{Format, Report, Row},
    sample::Sample,
};

/// One warm-up query per this many measured ones.
const WARM_UP: usize = 10;

/// Measures and prints one row per run.
pub(super) fn run(bench: &mut ServerBench, arguments: &ServeArguments, format: Format) -> Result<()> {
    let mut report = Report::new(format, "serve sequential");
    let count = arguments.queries.get();
    let warm_up = count.div_ceil(WARM_UP);
    for run in 1..=arguments.runs {
        let queries = bench.unused_queries(warm_up + count)?;
        let tokens_mean = bench.tokens_mean(&queries);
        let _pin = bench.pin_client()?;
        let agent = ureq::Agent::new_with_defaults();
        let pid = bench.server().pid();
        let mut ms = Vec::with_capacity(count);
        let mut cpu_before = 0.0;
        for (number, query) in queries.iter().enumerate() {
            if number == warm_up {
                cpu_before = machine::cpu_seconds(pid)?;
            }
            let url = bench.server().url(&format!("/search?q={}&k={}", encode(query), arguments.k));
            let began = Instant::now();
            agent.get(url).call()?.body_mut().read_to_vec()?;
            if number >= warm_up {
                ms.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        let cpu_us = (machine::cpu_seconds(pid)? - cpu_before) / count as f64 * 1e6;
        let ms = Sample::new(ms);
        report.push(
            Row::new()
                .with("documents", bench.documents())
                .with("quantization", arguments.quantization.name())
                .with("run", run)
                .with("queries", count)
                .with_rounded("tokens_mean", tokens_mean, 1)
                .with_rounded("p50_ms", ms.median(), 3)
                .with_rounded("p95_ms", ms.quantile(0.95), 3)
                .with_rounded("p99_ms", ms.quantile(0.99), 3)
                .with_rounded("cpu_us_per_query", cpu_us, 0)
                .with_rounded("rss_mib", machine::rss_mib(pid)?, 0),
        )?;
    }
    report.finish()
}
