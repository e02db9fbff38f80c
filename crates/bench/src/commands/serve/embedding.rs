//! Text to vector through the service: queue, workers, tokenizer, forward pass, no cache. What is
//! asked for is a search of a collection of one document, which adds a few microseconds.

use std::time::{Duration, Instant};

use anyhow::Result;
use nearfield::service::{Algorithm, Config, Context, Expected, Put, Schema, Service, Value};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    Arguments,
    in_process::{Asked, rate},
};
use crate::{
    corpus,
    machine::{self, Pinned},
    packages,
    report::{Format, Report, Row},
    sample::{Sample, median},
    setting::Setting,
};

/// The collection.
const NAME: &str = "one";
/// Queries under way at once, for each core.
const IN_FLIGHT: usize = 16;
/// Queries asked one after the other in a round.
const ALONE: usize = 300;

/// A service on some cores.
struct Bench {
    cores: Vec<usize>,
    service: Service,
    runtime: Runtime,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
    alone_ms: Vec<f64>,
    _dir: TempDir,
}

/// Measures and prints. One core and two take turns.
pub(super) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let model = setting.model()?;
    let given = corpus::queries(&setting.source.packages_queries())?;
    let tokens = given.iter().map(|query| model.tokenize(query).ids.len()).sum::<usize>();
    let tokens_mean = tokens as f64 / given.len() as f64;
    let schema = packages::schema(NAME, Algorithm::Flat, model.dim(), Some(model.name()));
    // The services load their own.
    drop(model);
    let asked = Asked::new(given, 1);
    let mut benches = Vec::new();
    for count in 1..=machine::cores().min(2) {
        benches.push(Bench::open((0..count).collect(), schema.clone(), setting)?);
    }
    for run in 0..arguments.runs {
        for turn in 0..benches.len() {
            let place = (run + turn) % benches.len();
            benches[place].round(&asked, arguments.seconds.min(3.0))?;
        }
        eprintln!("round {} of {} of text to vector done", run + 1, arguments.runs);
    }
    let one = median(&benches[0].rates);
    let mut report = Report::new(format, "serve embedding");
    for bench in benches {
        let (rate, alone) = (median(&bench.rates), Sample::new(bench.alone_ms));
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
                .with_rounded("alone_p50_ms", alone.median(), 3)
                .with_rounded("alone_p99_ms", alone.quantile(0.99), 3),
        )?;
        bench.service.close();
    }
    report.finish()
}

impl Bench {
    fn open(cores: Vec<usize>, schema: Schema, setting: &Setting) -> Result<Bench> {
        let _pinned = Pinned::to_any(&cores)?;
        std::fs::create_dir_all(&setting.cache_dir)?;
        let dir = tempfile::tempdir_in(&setting.cache_dir)?;
        let config = Config {
            workers: cores.len(),
            query_cache_bytes: 0,
            ..setting.service(&dir.path().join("data"))?
        };
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
        Ok(Bench {
            cores,
            service,
            runtime,
            rates: Vec::new(),
            cpu_us: Vec::new(),
            alone_ms: Vec::new(),
            _dir: dir,
        })
    }

    /// As many queries as it answers in `seconds`, then some alone.
    fn round(&mut self, asked: &Asked, seconds: f64) -> Result<()> {
        let _pinned = Pinned::to_any(&self.cores)?;
        let in_flight = IN_FLIGHT * self.cores.len();
        let length = Duration::from_secs_f64(seconds);
        let rate = rate(&self.runtime, &self.service, asked, in_flight, length)?;
        self.rates.push(rate.qps);
        self.cpu_us.push(rate.cpu_us);
        for _ in 0..ALONE {
            let begun = Instant::now();
            self.runtime.block_on(self.service.search(&Context::local(), asked.next()))?;
            self.alone_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    }
}
