//! What a document costs in memory and on disk, in Redis and in the embedded store.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Stand,
    load::{HNSW, Loaded},
};
use crate::{
    machine,
    peer::number,
    redis_py::figure,
    report::{Format, Report, Row},
    setting::Setting,
};

/// Keys whose `MEMORY USAGE` is averaged.
const SAMPLED: usize = 200;
/// What `FT.INFO` calls the parts of an index, in MiB.
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

/// Measures and prints. The embedded store is loaded by a process of its own, with the same
/// documents and vectors.
pub(super) fn run(stand: &mut Stand<'_>, loaded: &Loaded, setting: &Setting, format: Format) -> Result<()> {
    let rows = stand.documents.len();
    let count = rows as f64;
    let python = &mut stand.pythons[0];
    let info = python.index(HNSW.collection, rows)?;
    let mut hash = 0.0;
    let sampled = SAMPLED.min(rows);
    for sample in 0..sampled {
        let key = format!("{}:{}", HNSW.collection, sample * rows / sampled);
        let bytes = python.command(&["MEMORY", "USAGE", &key, "SAMPLES", "0"])?;
        hash += bytes.as_f64().with_context(|| format!("MEMORY USAGE {key}: {bytes}"))? / sampled as f64;
    }
    let parts: f64 = PARTS
        .iter()
        .filter(|part| !info[**part].is_null())
        .map(|part| figure(&info, part))
        .sum::<Result<f64>>()?;
    let vectors = figure(&info, "vector_index_sz_mb")?;
    let fragmentation = python.memory("mem_fragmentation_ratio")?;

    let embedded = embedded(rows, setting)?;
    let mut report = Report::new(format, "redis memory");
    report.push(
        Row::new()
            .with("store", "Redis Stack")
            .with("documents", rows)
            .with_rounded("memory_bytes_per_document", loaded.used_memory / count, 0)
            .with_rounded("memory_mib", loaded.used_memory / MIB, 0)
            .with_rounded("resident_bytes_per_document", loaded.used_memory * fragmentation / count, 0)
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

/// What `nearfield-bench load` says of as many documents with ready vectors, in a process whose
/// memory is theirs alone, on all cores.
fn embedded(rows: usize, setting: &Setting) -> Result<Value> {
    eprintln!("loading {rows} documents into the embedded store");
    let mut command = Command::new("taskset");
    let all = format!("0-{}", machine::cores() - 1);
    command.args(["-c", &all]).arg(std::env::current_exe()?).args(setting.arguments()?);
    command.args(["load", "--json", "--mode", "vectors", "--documents", &rows.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    serde_json::from_str(text.trim()).with_context(|| format!("{command:?} printed {text}"))
}
