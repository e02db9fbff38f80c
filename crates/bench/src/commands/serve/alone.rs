//! `serve`, one query at a time: over one connection that stays open, the next once the last is
//! answered.

use std::time::Instant;

use anyhow::Result;

use super::{Arguments, Bench};
use crate::{
    machine,
    open_loop::encode,
    report::{Format, Report, Row},
    sample::Sample,
};

/// Queries before those that count.
const WARM_UP: usize = 200;
/// Queries of a run.
const QUERIES: usize = 2000;

/// Measures and prints, a row a run.
pub(super) fn run(bench: &mut Bench, arguments: &Arguments, format: Format) -> Result<()> {
    let mut report = Report::new(format, "serve alone");
    for run in 1..=arguments.runs {
        let queries = bench.fresh(WARM_UP + QUERIES)?;
        let tokens_mean = bench.tokens_mean(&queries);
        let _pinned = bench.pinned()?;
        let agent = ureq::Agent::new_with_defaults();
        let pid = bench.server().pid();
        let mut ms = Vec::with_capacity(QUERIES);
        let mut cpu_before = 0.0;
        for (number, query) in queries.iter().enumerate() {
            if number == WARM_UP {
                cpu_before = machine::cpu_seconds(pid)?;
            }
            let url = bench.server().url(&format!("/search?q={}&k={}", encode(query), arguments.k));
            let began = Instant::now();
            agent.get(url).call()?.body_mut().read_to_vec()?;
            if number >= WARM_UP {
                ms.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        let cpu_us = (machine::cpu_seconds(pid)? - cpu_before) / QUERIES as f64 * 1e6;
        let ms = Sample::new(ms);
        report.push(
            Row::new()
                .with("documents", bench.documents())
                .with("quantization", arguments.quantization.name())
                .with("run", run)
                .with("queries", QUERIES)
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
