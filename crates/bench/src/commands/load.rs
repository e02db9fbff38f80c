//! `load`: documents per second and bytes per document of bulk loading through the service.

use std::{num::NonZero, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use nearfield::service::{self, Quantization, Service};

use crate::{
    corpus,
    global_options::GlobalOptions,
    machine, packages,
    report::{Format, Report, Row},
    vectors,
};

/// What the documents come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Text and vector.
    Vectors,
    /// Text only, to be embedded.
    Text,
}

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArguments {
    /// Number of packages to load, from the first
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    documents: usize,
    /// Documents per write
    #[arg(long, default_value = "500")]
    batch: NonZero<usize>,
    /// With vectors, or with embedding included [default: both, each in a process of its own]
    #[arg(long)]
    mode: Option<Mode>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &LoadArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let Some(mode) = arguments.mode else {
        return ["vectors", "text"].into_iter().try_for_each(run_in_own_process);
    };
    let mut report = Report::new(format, "load");
    report.push(measure(mode, arguments, global)?)?;
    report.finish()
}

/// Runs this command again for one mode, so that each mode's memory is measured separately.
fn run_in_own_process(mode: &str) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).args(["--mode", mode]);
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} exited with {status}");
    Ok(())
}

fn measure(mode: Mode, arguments: &LoadArguments, global: &GlobalOptions) -> Result<Row> {
    let model = global.model()?;
    let source = global.data.packages()?;
    let documents = corpus::documents(&source, arguments.documents)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = match mode {
        Mode::Vectors => Some(vectors::of_texts(&global.cache_dir, &model, &source, &texts)?),
        Mode::Text => None,
    };
    let dir = global.temporary_dir()?;
    let service = Service::open(global.service(dir.path())?)?;
    // Loads the service's model before memory is measured.
    let schema = packages::own_schema(&model, Quantization::None);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(service.put_collection(
        &service::Context::local(),
        packages::NAME,
        schema.clone(),
        false,
    ))?;
    let pid = std::process::id();
    let before_mib = machine::rss_mib(pid)?;
    let before_cpu_s = machine::cpu_seconds(pid)?;
    let started = Instant::now();
    packages::fill(&service, schema, &documents, vectors.as_ref(), arguments.batch)?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_s = machine::cpu_seconds(pid)? - before_cpu_s;
    let rss_mib = machine::rss_mib(pid)? - before_mib;
    let stats = runtime.block_on(service.stats(&service::Context::local()))?;
    service.close();
    let count = documents.len() as f64;
    Ok(Row::new()
        .with("mode", if mode == Mode::Text { "text" } else { "vectors" })
        .with("documents", documents.len())
        .with("cores", machine::cores())
        .with("batch", arguments.batch.get())
        .with("commits", stats.commits)
        .with_rounded("seconds", seconds, 2)
        .with_rounded("documents_per_s", count / seconds, 1)
        .with_rounded("cpu_pct", cpu_s / seconds * 100.0, 0)
        .with_rounded("memory_bytes_per_document", stats.memory_bytes as f64 / count, 0)
        .with_rounded("rss_bytes_per_document", rss_mib * 1_048_576.0 / count, 0)
        .with_rounded("disk_bytes_per_document", stats.file_bytes as f64 / count, 0))
}
