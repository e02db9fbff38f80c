//! Text to vector through the service: queue, workers, tokenizer, forward pass, no cache. Each query searches a
//! collection of one document, which adds a few microseconds.

use std::time::{Duration, Instant};

use anyhow::Result;
use nearfield::service::{Algorithm, Context, Expected, Put, Schema, Service, Value};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    ServeArguments,
    in_process::{self, QueryCycle},
};
use crate::{
    corpus,
    global_options::GlobalOptions,
    machine::{self, CorePin},
    packages,
    report::{Format, Report, Row},
    sample::{Sample, median},
};

/// The collection's name.
const NAME: &str = "one";
/// Queries in flight per core.
const IN_FLIGHT: usize = 16;
/// Sequential queries per round.
const SEQUENTIAL: usize = 300;

/// A service pinned to some cores, with its measurements.
struct EmbeddingBench {
    cores: Vec<usize>,
    service: Service,
    runtime: Runtime,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
    sequential_ms: Vec<f64>,
    _dir: TempDir,
}

/// Measures and prints, alternating one core and two.
pub(super) fn run(arguments: &ServeArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let model = global.model()?;
    let queries = corpus::queries(&global.data.package_queries()?)?;
    let tokens = queries.iter().map(|query| model.tokenize(query).ids.len()).sum::<usize>();
    let tokens_mean = tokens as f64 / queries.len() as f64;
    let schema = packages::schema(NAME, Algorithm::Flat, model.dim(), Some(model.name()));
    // Each service loads its own.
    drop(model);
    let queries = QueryCycle::new(queries, 1);
    let mut benches = Vec::new();
    for count in 1..=machine::cores().min(2) {
        benches.push(EmbeddingBench::open((0..count).collect(), schema.clone(), global)?);
    }
    for run in 0..arguments.runs {
        for offset in 0..benches.len() {
            let position = (run + offset) % benches.len();
            benches[position].measure_round(&queries, arguments.seconds.min(3.0))?;
        }
        eprintln!("round {} of {} of embedding done", run + 1, arguments.runs);
    }
    let one = median(&benches[0].rates);
    let mut report = Report::new(format, "serve embedding");
    for bench in benches {
        let (rate, sequential) = (median(&bench.rates), Sample::new(bench.sequential_ms));
        report.push(
            Row::new()
                .with("cores", bench.cores.len())
                .with("workers", bench.cores.len())
                .with("cache", "off")
                .with_rounded("tokens_mean", tokens_mean, 1)
                .with("runs", arguments.runs)
                .with("in_flight", IN_FLIGHT * bench.cores.len())
                .with_rounded("texts_per_s", rate, 0)
                .with_rounded("times_one_core", rate / one, 2)
                .with_rounded("cpu_us_per_text", median(&bench.cpu_us), 0)
                .with_rounded("sequential_p50_ms", sequential.median(), 3)
                .with_rounded("sequential_p99_ms", sequential.quantile(0.99), 3),
        )?;
        bench.service.close();
    }
    report.finish()
}

impl EmbeddingBench {
    fn open(cores: Vec<usize>, schema: Schema, global: &GlobalOptions) -> Result<EmbeddingBench> {
        let _pin = CorePin::to_cores(&cores)?;
        let dir = global.temporary_dir()?;
        let config = in_process::config(cores.len(), &dir.path().join("data"), global)?;
        let service = Service::open(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let cx = Context::local();
            service.put_collection(&cx, NAME, schema, false).await?;
            let fields = vec![("content".to_owned(), Value::Bytes(b"the only document".to_vec()))];
            let put = Put { id: "1".to_owned(), fields, ttl: None, expected: Expected::Any };
            for result in service.put(&cx, NAME, vec![put]).await? {
                result?;
            }
            anyhow::Ok(())
        })?;
        Ok(EmbeddingBench {
            cores,
            service,
            runtime,
            rates: Vec::new(),
            cpu_us: Vec::new(),
            sequential_ms: Vec::new(),
            _dir: dir,
        })
    }

    /// Measures the throughput for `seconds`, then sequential queries.
    fn measure_round(&mut self, queries: &QueryCycle, seconds: f64) -> Result<()> {
        let _pin = CorePin::to_cores(&self.cores)?;
        let in_flight = IN_FLIGHT * self.cores.len();
        let length = Duration::from_secs_f64(seconds);
        let throughput = in_process::measure(&self.runtime, &self.service, queries, in_flight, length)?;
        self.rates.push(throughput.qps);
        self.cpu_us.push(throughput.cpu_us);
        for _ in 0..SEQUENTIAL {
            let began = Instant::now();
            self.runtime.block_on(self.service.search(&Context::local(), queries.next()))?;
            self.sequential_ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    }
}
