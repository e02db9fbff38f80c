//! The cost of a command by pipeline size: the article's section 6.2.

use std::time::Instant;

use anyhow::Result;
use nearfield::service::{Algorithm, Context, Expected, Put, Service, Value};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{Client, REDIS_PY, RedisBench};
use crate::{
    peer::number,
    report::{Format, Report, Row},
    sample::median,
};

/// Nearfield's collection.
const NAME: &str = "small";
/// redis-py's index.
const PYTHON: &str = "small_python";
/// Dimension of the vectors: small, so that the cost of the command dominates.
pub(crate) const DIM: usize = 4;

/// Documents per write, and writes per round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PipelineSize {
    pub(crate) batch: usize,
    pub(crate) rounds: usize,
}

/// The measured sizes.
pub(crate) const PIPELINE_SIZES: [PipelineSize; 4] = [
    PipelineSize { batch: 1, rounds: 500 },
    PipelineSize { batch: 100, rounds: 20 },
    PipelineSize { batch: 500, rounds: 8 },
    PipelineSize { batch: 1000, rounds: 8 },
];

/// Measures and prints. Each write adds new documents with a few words and a vector of four values.
pub(super) fn run(bench: &mut RedisBench<'_>, format: Format) -> Result<()> {
    bench.create_collection(NAME, Algorithm::Flat, DIM)?;
    bench.create_index(PYTHON, Algorithm::Flat, DIM)?;
    for name in [NAME, PYTHON] {
        bench.server.wait_until_scanned(name)?;
    }
    let clients = bench.clients();
    let mut report = Report::new(format, "redis pipelining");
    for PipelineSize { batch, rounds } in PIPELINE_SIZES {
        let rounds = rounds.div_ceil(bench.arguments.fewer_writes.get());
        let size = PipelineSize { batch, rounds };
        let mut times = vec![Vec::new(); clients.len()];
        for run in 0..bench.arguments.runs {
            for offset in 0..clients.len() {
                let position = (run + offset) % clients.len();
                let us = match clients[position] {
                    Client::Nearfield => {
                        write(&bench.service, &bench.runtime, NAME, &format!("{run}-"), size)?
                    }
                    Client::Python(python) => {
                        let response = bench.pythons[python].request(&json!({
                            "do": "pipeline", "prefix": format!("{PYTHON}:{python}-{batch}-{run}-"),
                            "batch": batch, "rounds": rounds,
                        }))?;
                        number(&response, "us_per_command")?
                    }
                };
                times[position].push(us);
            }
        }
        let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
        let redis_py_us = medians.get(REDIS_PY).copied().unwrap_or(f64::NAN);
        for (client, &us_per_command) in clients.iter().zip(&medians) {
            report.push(
                Row::new()
                    .with("client", bench.name(*client))
                    .with("batch", batch)
                    .with("runs", bench.arguments.runs)
                    .with_rounded("us_per_command", us_per_command, 1)
                    .with_rounded("times_redis_py", redis_py_us / us_per_command, 2),
            )?;
        }
    }
    report.finish()
}

/// Median microseconds per document of consecutive writes; the ids start with `id_prefix`.
pub(crate) fn write(
    service: &Service,
    runtime: &Runtime,
    collection: &str,
    id_prefix: &str,
    size: PipelineSize,
) -> Result<f64> {
    let PipelineSize { batch, rounds } = size;
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let puts: Vec<Put> =
            (0..batch).map(|row| put(format!("{id_prefix}{batch}-{round}-{row}"), row)).collect();
        let began = Instant::now();
        let results = runtime.block_on(service.put(&Context::local(), collection, puts))?;
        times.push(began.elapsed().as_secs_f64() * 1e6 / batch as f64);
        for result in results {
            result?;
        }
    }
    Ok(median(&times))
}

fn put(id: String, row: usize) -> Put {
    let fields = vec![
        ("content".to_owned(), Value::Bytes(b"a document of a few words".to_vec())),
        ("embedding".to_owned(), Value::Vector(vec![1.0, row as f32, 0.0, 0.0])),
    ];
    Put { id, fields, ttl: None, expected: Expected::Any }
}
