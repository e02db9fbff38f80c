//! The published figure of the model on SciFact, reached by the program as users run it.
//!
//! Needs the real model and the SciFact collection (`NEARFIELD_DATA`, `../shared` beside the
//! repository by default). Skipped, loudly, where either is missing.

mod real_model;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// nDCG@10 of all-MiniLM-L6-v2 on SciFact, as MTEB publishes it, and how near we must come.
const PUBLISHED: f64 = 0.645;
const TOLERANCE: f64 = 0.003;
/// What queries in 8-bit integers, the default, may lose against single precision.
const INT8_LOSS_MAX: f64 = 0.005;
/// What the graph may lose against comparing with every document.
const GRAPH_LOSS_MAX: f64 = 0.005;

fn scifact() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let data = std::env::var_os("NEARFIELD_DATA").map_or(beside, PathBuf::from);
    let scifact = data.join("eval/scifact");
    if scifact.is_dir() {
        return Some(scifact);
    }
    eprintln!("SKIPPED: no collection in {}", scifact.display());
    None
}

/// Runs `nearfield eval` on the documents kept in `keep` and gives its nDCG@10.
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
fn scifact_is_answered_as_well_as_published() {
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
