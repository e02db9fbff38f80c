//! `durability`: writes per second by durability setting, with one writer and with many, each waiting for its
//! response. The settings alternate, round by round; documents and index (text, a vector in a flat index) are
//! the same for all.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nearfield::service::{Algorithm, Config, Context, Durability, Expected, Put, Service, Value};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    global_options::GlobalOptions,
    machine, packages,
    random::Random,
    report::{Format, Report, Row},
    sample::{Sample, median},
};

const NAME: &str = "notes";
const DIM: usize = 384;
const TEXT_BYTES: usize = 500;

/// Arguments of `durability`.
#[derive(Debug, clap::Args)]
pub(crate) struct DurabilityArguments {
    /// Concurrent writers
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    writers: Vec<usize>,
    /// Length of each measurement in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measurements of each setting; the median is printed
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Documents inserted first, then overwritten
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    documents: u64,
}

/// The measurements of one setting.
#[derive(Debug, Default)]
struct Samples {
    writes_per_s: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    /// Growth of the file in percent.
    growth_pct: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &DurabilityArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let mut report = Report::new(format, "durability");
    for &writers in &arguments.writers {
        let mut measured: [Samples; Durability::ALL.len()] = Default::default();
        for _ in 0..arguments.rounds {
            for (durability, measured) in Durability::ALL.into_iter().zip(&mut measured) {
                let dir = global.temporary_dir()?;
                let config = Config { durability, ..global.service_without_model(dir.path())? };
                measure(config, writers, arguments, measured)?;
            }
        }
        let always = median(&measured[0].writes_per_s);
        for (durability, measured) in Durability::ALL.into_iter().zip(&measured) {
            let rate = median(&measured.writes_per_s);
            let row = Row::new()
                .with("durability", durability.name())
                .with("writers", writers)
                .with("cores", machine::cores())
                .with_rounded("writes_per_s", rate, 0)
                .with_rounded("times_always", rate / always, 2)
                .with_rounded("p50_ms", median(&measured.p50_ms), 3)
                .with_rounded("p99_ms", median(&measured.p99_ms), 3)
                .with_rounded("file_growth_pct", median(&measured.growth_pct), 0);
            report.push(row)?;
        }
    }
    report.finish()
}

fn measure(
    config: Config,
    writers: usize,
    arguments: &DurabilityArguments,
    measured: &mut Samples,
) -> Result<()> {
    let service = Service::open(config)?;
    let runtime = Runtime::new()?;
    let latencies = runtime.block_on(async {
        let schema = packages::schema(NAME, Algorithm::Flat, DIM, None);
        service.put_collection(&Context::local(), NAME, schema, false).await?;
        let mut random = Random::new(1);
        let mut number = 0;
        while number < arguments.documents {
            let last = arguments.documents.min(number + 500);
            let puts = (number..last).map(|number| put(number, &mut random)).collect();
            write(&service, puts).await?;
            number = last;
        }
        let before = service.stats(&Context::local()).await?.file_bytes as f64;
        let latencies = write_for(&service, writers, arguments).await?;
        let after = service.stats(&Context::local()).await?.file_bytes as f64;
        measured.growth_pct.push((after / before - 1.0) * 100.0);
        anyhow::Ok(latencies)
    })?;
    service.close();
    measured.writes_per_s.push(latencies.len() as f64 / arguments.seconds);
    let sample = Sample::new(latencies);
    measured.p50_ms.push(sample.median());
    measured.p99_ms.push(sample.quantile(0.99));
    Ok(())
}

/// Each writer overwrites one random document after the other; returns the milliseconds until each response.
async fn write_for(service: &Service, writers: usize, arguments: &DurabilityArguments) -> Result<Vec<f64>> {
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let documents = usize::try_from(arguments.documents.max(1))?;
    let mut running: JoinSet<Result<Vec<f64>>> = JoinSet::new();
    for seed in 2..writers as u64 + 2 {
        let service = service.clone();
        running.spawn(async move {
            let mut random = Random::new(seed);
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let put = put(random.below(documents) as u64, &mut random);
                let began = Instant::now();
                write(&service, vec![put]).await?;
                latencies.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(writer) = running.join_next().await {
        latencies.extend(writer.context("a writer panicked")??);
    }
    Ok(latencies)
}

async fn write(service: &Service, puts: Vec<Put>) -> Result<()> {
    for result in service.put(&Context::local(), NAME, puts).await? {
        result?;
    }
    Ok(())
}

fn put(number: u64, random: &mut Random) -> Put {
    let vector = (0..DIM).map(|_| random.unit() as f32).collect();
    let text = format!("document {number} ").into_bytes().into_iter().cycle().take(TEXT_BYTES).collect();
    let fields =
        vec![("content".to_owned(), Value::Bytes(text)), ("embedding".to_owned(), Value::Vector(vector))];
    Put { id: number.to_string(), fields, ttl: None, expected: Expected::Any }
}
