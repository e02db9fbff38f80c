//! Diagnosis of search performance.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use service::{Diagnosis, Stage};

/// Durations of the last searches, and advice.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DiagnosisResponse {
    /// Number of searches evaluated, at most the last 1,000.
    pub searches: usize,
    /// One entry per stage, the total last.
    pub stages: Vec<StageResponse>,
    /// Which settings to change and why; empty if nothing needs attention.
    pub advice: Vec<String>,
    /// The state of each Redis.
    pub stores: Vec<String>,
}

/// A stage of a search.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StageResponse {
    /// Name of the stage.
    pub name: String,
    /// Share of the total time, 0 to 1.
    pub share: f64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
}

impl From<Diagnosis> for DiagnosisResponse {
    fn from(diagnosis: Diagnosis) -> DiagnosisResponse {
        let Diagnosis { searches, stages, advice, stores } = diagnosis;
        let stages = stages.into_iter().map(|Stage { name, share, p50_us, p99_us }| StageResponse {
            name: name.to_owned(),
            share,
            p50_us,
            p99_us,
        });
        DiagnosisResponse { searches, stages: stages.collect(), advice, stores }
    }
}
