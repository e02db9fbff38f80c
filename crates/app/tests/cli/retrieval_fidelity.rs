//! The program reaches the published nDCG@10 of the model on SciFact.
//!
//! Needs the default model and the SciFact collection (below `NEARFIELD_DATA`, by default `../shared` next
//! to the repository). Skipped with a message if either is missing.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use testing::real_model;

/// nDCG@10 of all-MiniLM-L6-v2 on SciFact as published by MTEB, and the allowed difference.
const PUBLISHED: f64 = 0.645;
const TOLERANCE: f64 = 0.003;
/// Maximum loss of queries computed in 8-bit integers (the default) compared with single precision.
const INT8_LOSS_MAX: f64 = 0.005;
/// Maximum loss of graph search compared with exact search.
const GRAPH_LOSS_MAX: f64 = 0.005;

/// The directory of the evaluation data.
fn data() -> PathBuf {
    std::env::var_os("NEARFIELD_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

fn scifact() -> Option<PathBuf> {
    let scifact = data().join("eval/scifact");
    if scifact.is_dir() {
        return Some(scifact);
    }
    eprintln!("SKIPPED: no collection in {}", scifact.display());
    None
}

/// Runs `nearfield eval` on the documents stored in `keep` and returns its nDCG@10.
fn ndcg(models: &Path, scifact: &Path, keep: &Path, more: &[&str]) -> f64 {
    let output = Command::new(env!("CARGO_BIN_EXE_nearfield"))
        .arg("eval")
        .arg(scifact)
        .args(["--json", "--quiet", "--document-compute", "f32", "--models-dir"])
        .arg(models)
        .arg("--keep")
        .arg(keep)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    eprintln!("{report}");
    report["ndcg_at_10"].as_f64().unwrap()
}

#[test]
fn reaches_the_published_ndcg_on_scifact() {
    let (Some(models), Some(scifact)) = (real_model::models(), scifact()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let keep = directory.path().join("scifact");
    let exact = ndcg(&models, &scifact, &keep, &["--exact", "--query-compute", "f32"]);
    let int8 = ndcg(&models, &scifact, &keep, &["--exact"]);
    let graph = ndcg(&models, &scifact, &keep, &["--query-compute", "f32"]);
    assert!((exact - PUBLISHED).abs() <= TOLERANCE, "exact search: {exact}, published {PUBLISHED}");
    assert!(exact - int8 <= INT8_LOSS_MAX, "queries in int8: {int8}, in f32: {exact}");
    assert!(exact - graph <= GRAPH_LOSS_MAX, "graph: {graph}, exact search: {exact}");
}
