//! `load`: documents a second and bytes a document for a bulk load, through the service.

use std::{num::NonZero, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use nearfield::service::{self, Quantization, Service};

use crate::{
    corpus, machine, packages,
    report::{Format, Report, Row},
    setting::Setting,
    vectors,
};

/// What is handed to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Text with its vector.
    Vectors,
    /// Text alone, to be embedded.
    Text,
}

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The first so many packages
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    documents: usize,
    /// Documents in a write
    #[arg(long, default_value = "500")]
    batch: NonZero<usize>,
    /// With ready vectors, or embedding included [default: both, each in a process of its own]
    #[arg(long)]
    mode: Option<Mode>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let Some(mode) = arguments.mode else {
        return ["vectors", "text"].into_iter().try_for_each(alone);
    };
    let mut report = Report::new(format, "load");
    report.push(measure(mode, arguments, setting)?)?;
    report.finish()
}

/// The same command again for one mode only, so that the memory of one does not show in the other.
fn alone(mode: &str) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).args(["--mode", mode]);
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn measure(mode: Mode, arguments: &Arguments, setting: &Setting) -> Result<Row> {
    let model = setting.model()?;
    let source = setting.source.packages();
    let documents = corpus::documents(&source, arguments.documents)?;
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let ready = match mode {
        Mode::Vectors => Some(vectors::of_texts(&setting.cache_dir, &model, &source, &texts)?),
        Mode::Text => None,
    };
    let dir = tempfile::tempdir_in(&setting.cache_dir)?;
    let service = Service::open(setting.service(dir.path())?)?;
    // Loads the service's model, which is no document's memory.
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
    packages::fill(&service, schema, &documents, ready.as_ref(), arguments.batch)?;
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
