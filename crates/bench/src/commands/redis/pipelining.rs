//! What a command costs alone and among others in a pipeline: the article's section 6.2.

use std::time::Instant;

use anyhow::Result;
use nearfield::service::{Algorithm, Context, Expected, Put, Service, Value};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{Client, Stand};
use crate::{
    peer::number,
    report::{Format, Report, Row},
    sample::median,
};

/// The collection of ours.
const NAME: &str = "small";
/// The index of redis-py's documents.
const PYTHON: &str = "small_python";
/// Values of a vector: small, so that the command is what costs.
pub(crate) const DIM: usize = 4;

/// Documents in a write, and writes in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) rounds: usize,
}

/// What is measured.
pub(crate) const SIZES: [Sizes; 4] = [
    Sizes { batch: 1, rounds: 500 },
    Sizes { batch: 100, rounds: 20 },
    Sizes { batch: 500, rounds: 8 },
    Sizes { batch: 1000, rounds: 8 },
];

/// Measures and prints: documents of a few words and a vector of four values, new each time.
pub(super) fn run(stand: &mut Stand<'_>, format: Format) -> Result<()> {
    stand.create(NAME, Algorithm::Flat, DIM)?;
    stand.create_in_python(PYTHON, Algorithm::Flat, DIM)?;
    for name in [NAME, PYTHON] {
        stand.pythons[0].wait_until_scanned(name)?;
    }
    let clients = stand.clients();
    let mut report = Report::new(format, "redis pipelining");
    for sizes in SIZES {
        let Sizes { batch, rounds } = sizes;
        let mut times = vec![Vec::new(); clients.len()];
        for run in 0..stand.arguments.runs {
            for turn in 0..clients.len() {
                let place = (run + turn) % clients.len();
                let us = match clients[place] {
                    Client::Ours => write(&stand.service, &stand.runtime, NAME, &format!("{run}-"), sizes)?,
                    Client::Python(python) => {
                        let answer = stand.pythons[python].ask(&json!({
                            "do": "pipeline", "prefix": format!("{PYTHON}:{python}-{batch}-{run}-"),
                            "batch": batch, "rounds": rounds,
                        }))?;
                        number(&answer, "us_per_command")?
                    }
                };
                times[place].push(us);
            }
        }
        let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
        for (client, &us_per_command) in clients.iter().zip(&medians) {
            report.push(
                Row::new()
                    .with("client", stand.name(*client))
                    .with("batch", batch)
                    .with("runs", stand.arguments.runs)
                    .with_rounded("us_per_command", us_per_command, 1)
                    .with_rounded("times_redis_py", medians[1] / us_per_command, 2),
            )?;
        }
    }
    report.finish()
}

/// Median microseconds a document; writes follow each other, ids begin with `mark`.
pub(crate) fn write(
    service: &Service,
    runtime: &Runtime,
    collection: &str,
    mark: &str,
    sizes: Sizes,
) -> Result<f64> {
    let Sizes { batch, rounds } = sizes;
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let puts: Vec<Put> = (0..batch).map(|row| put(format!("{mark}{batch}-{round}-{row}"), row)).collect();
        let begun = Instant::now();
        let results = runtime.block_on(service.put(&Context::local(), collection, puts))?;
        times.push(begun.elapsed().as_secs_f64() * 1e6 / batch as f64);
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
