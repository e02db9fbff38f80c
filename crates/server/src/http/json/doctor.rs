//! A diagnosis.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use service::{Diagnosis, Stage};

/// Where the time of the last searches went.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DiagnosisResponse {
    /// Searches it rests on, at most the last 1,000.
    pub searches: usize,
    /// One entry per stage, the whole last.
    pub stages: Vec<StageResponse>,
    /// What to know and what to turn; empty if all is well.
    pub advice: Vec<String>,
    /// What each Redis says of itself.
    pub stores: Vec<String>,
}

/// A stage of a search.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StageResponse {
    /// Its name.
    pub name: String,
    /// Of the whole time, 0 to 1.
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
