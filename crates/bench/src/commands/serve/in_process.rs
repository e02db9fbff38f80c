//! Closed-loop load on a service in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use nearfield::service::{Context, SearchRequest, Service};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::machine;

/// Queries to ask, over and over, by many at once.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    queries: Arc<[String]>,
    next: Arc<AtomicUsize>,
    k: usize,
}

impl Asked {
    /// These queries, for `k` hits each.
    pub(super) fn new(queries: Vec<String>, k: usize) -> Asked {
        Asked { queries: queries.into(), next: Arc::default(), k }
    }

    /// The next search.
    pub(super) fn next(&self) -> SearchRequest {
        let query = &self.queries[self.next.fetch_add(1, Relaxed) % self.queries.len()];
        SearchRequest::text(query, self.k)
    }
}

/// What load came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Queries answered a second.
    pub(super) qps: f64,
    /// Processor time of this process for a query, the load's included. Where others take part of the
    /// cores, it tells what a second core would add.
    pub(super) cpu_us: f64,
}

/// Asks for a while, with so many queries under way at once.
pub(super) fn rate(
    runtime: &Runtime,
    service: &Service,
    asked: &Asked,
    in_flight: usize,
    length: Duration,
) -> Result<Rate> {
    let (started, cpu_before) = (Instant::now(), machine::process_cpu());
    let until = started + length;
    let answered = runtime.block_on(async {
        let mut askers = JoinSet::new();
        for _ in 0..in_flight {
            askers.spawn(ask(service.clone(), asked.clone(), until));
        }
        let mut answered = 0;
        while let Some(count) = askers.join_next().await {
            answered += count??;
        }
        anyhow::Ok(answered)
    })?;
    let (took, cpu) = (started.elapsed(), machine::process_cpu() - cpu_before);
    Ok(Rate { qps: answered as f64 / took.as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 / answered as f64 })
}

/// Asks one query after the other until the time is up.
async fn ask(service: Service, asked: Asked, until: Instant) -> Result<usize> {
    let mut answered = 0;
    while Instant::now() < until {
        service.search(&Context::local(), asked.next()).await?;
        answered += 1;
    }
    Ok(answered)
}
