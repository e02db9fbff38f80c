//! Memory and disk space per document, in Redis and in the embedded store.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{RedisBench, load::HNSW};
use crate::{
    global_options::GlobalOptions,
    machine,
    peer::number,
    redis_server::info_number,
    report::{Format, Report, Row},
};

/// Number of keys whose `MEMORY USAGE` is averaged.
const SAMPLED: usize = 200;
/// Names in `FT.INFO` of the sizes of an index's parts, in MiB.
const PARTS: [&str; 7] = [
    "inverted_sz_mb",
    "vector_index_sz_mb",
    "offset_vectors_sz_mb",
    "doc_table_size_mb",
    "sortable_values_size_mb",
    "key_table_size_mb",
    "tag_overhead_sz_mb",
];
const MIB: f64 = 1_048_576.0;

/// Measures and prints, given how much `used_memory` grew while loading. The embedded store is loaded with the
/// same documents and vectors by a process of its own.
pub(super) fn run(
    bench: &RedisBench<'_>,
    used_memory: f64,
    global: &GlobalOptions,
    format: Format,
) -> Result<()> {
    let rows = bench.documents.len();
    let count = rows as f64;
    let server = &bench.server;
    let info = server.index_info(HNSW.collection, rows)?;
    let mut hash = 0.0;
    let sampled = SAMPLED.min(rows);
    for sample in 0..sampled {
        let key = format!("{}:{}", HNSW.collection, sample * rows / sampled);
        let bytes = server.json(&["MEMORY", "USAGE", &key, "SAMPLES", "0"])?;
        hash += bytes.as_f64().with_context(|| format!("MEMORY USAGE {key}: {bytes}"))? / sampled as f64;
    }
    let parts: f64 = PARTS
        .iter()
        .filter(|part| !info[**part].is_null())
        .map(|part| info_number(&info, part))
        .sum::<Result<f64>>()?;
    let vectors = info_number(&info, "vector_index_sz_mb")?;
    let fragmentation = server.memory("mem_fragmentation_ratio")?;

    let embedded = embedded(rows, global)?;
    let mut report = Report::new(format, "redis memory");
    report.push(
        Row::new()
            .with("store", "Redis Stack")
            .with("documents", rows)
            .with_rounded("memory_bytes_per_document", used_memory / count, 0)
            .with_rounded("memory_mib", used_memory / MIB, 0)
            .with_rounded("resident_bytes_per_document", used_memory * fragmentation / count, 0)
            .with_rounded("hash_bytes_per_document", hash, 0)
            .with_rounded("index_bytes_per_document", parts * MIB / count, 0)
            .with_rounded("vector_index_bytes_per_document", vectors * MIB / count, 0)
            .with("disk_bytes_per_document", 0),
    )?;
    let memory = number(&embedded, "memory_bytes_per_document")?;
    report.push(
        Row::new()
            .with("store", "embedded")
            .with("documents", rows)
            .with_rounded("memory_bytes_per_document", memory, 0)
            .with_rounded("memory_mib", memory * count / MIB, 0)
            .with_rounded("resident_bytes_per_document", number(&embedded, "rss_bytes_per_document")?, 0)
            .with("hash_bytes_per_document", 0)
            .with_rounded("index_bytes_per_document", memory, 0)
            .with("vector_index_bytes_per_document", Value::Null)
            .with_rounded("disk_bytes_per_document", number(&embedded, "disk_bytes_per_document")?, 0),
    )?;
    report.finish()
}

/// The output of `nearfield-bench load` for as many documents with vectors, on all cores. It runs in a process
/// of its own, so that its memory is that of the documents only.
fn embedded(rows: usize, global: &GlobalOptions) -> Result<Value> {
    eprintln!("loading {rows} documents into the embedded store");
    let mut command = Command::new("taskset");
    let all = format!("0-{}", machine::cores() - 1);
    command.args(["-c", &all]).arg(std::env::current_exe()?).args(global.arguments()?);
    command.args(["load", "--json", "--mode", "vectors", "--documents", &rows.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} exited with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    serde_json::from_str(text.trim()).with_context(|| format!("{command:?} printed {text}"))
}
