//! Closed-loop load on an in-process service.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use nearfield::service::{Config, Context, SearchRequest, Service};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{global_options::GlobalOptions, machine};

/// Queries, repeated in a cycle and shared by concurrent clients.
#[derive(Clone, Debug)]
pub(super) struct QueryCycle {
    queries: Arc<[String]>,
    next: Arc<AtomicUsize>,
    k: usize,
}

impl QueryCycle {
    /// A cycle of these queries, with `k` hits each.
    pub(super) fn new(queries: Vec<String>, k: usize) -> QueryCycle {
        QueryCycle { queries: queries.into(), next: Arc::default(), k }
    }

    /// The next search.
    pub(super) fn next(&self) -> SearchRequest {
        let query = &self.queries[self.next.fetch_add(1, Relaxed) % self.queries.len()];
        SearchRequest::text(query, self.k)
    }
}

/// The throughput under load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throughput {
    /// Queries answered per second.
    pub(super) qps: f64,
    /// CPU microseconds of this process per query, load generation included. Where other processes use the
    /// cores too, this figure shows the gain of a second core better than `qps`.
    pub(super) cpu_us: f64,
}

/// The configuration of a service with one worker per core and without a query cache. Load shedding by queue
/// delay is off: the clients always keep a fixed number of queries in flight, so the queue is as long as the
/// benchmark makes it, and a rejected query would end the measurement.
pub(super) fn config(cores: usize, data_dir: &Path, global: &GlobalOptions) -> Result<Config> {
    Ok(Config {
        workers: cores,
        query_cache_bytes: 0,
        queue_wait: Duration::MAX,
        ..global.service(data_dir)?
    })
}

/// Keeps `in_flight` queries in flight for `length`.
pub(super) fn measure(
    runtime: &Runtime,
    service: &Service,
    queries: &QueryCycle,
    in_flight: usize,
    length: Duration,
) -> Result<Throughput> {
    let (started, cpu_before) = (Instant::now(), machine::process_cpu());
    let until = started + length;
    let answered = runtime.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..in_flight {
            clients.spawn(search_until(service.clone(), queries.clone(), until));
        }
        let mut answered = 0;
        while let Some(count) = clients.join_next().await {
            answered += count??;
        }
        anyhow::Ok(answered)
    })?;
    let (elapsed, cpu) = (started.elapsed(), machine::process_cpu() - cpu_before);
    Ok(Throughput {
        qps: answered as f64 / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / answered as f64,
    })
}

/// Sends one query after the other until the given time; returns their number.
async fn search_until(service: Service, queries: QueryCycle, until: Instant) -> Result<usize> {
    let mut answered = 0;
    while Instant::now() < until {
        service.search(&Context::local(), queries.next()).await?;
        answered += 1;
    }
    Ok(answered)
}
