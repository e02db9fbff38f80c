//! A diagnosis.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::service::{Diagnosis, Stage};

/// Where the time of the last searches went.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DiagnosisView {
    /// Searches it rests on, at most the last 1,000.
    pub(crate) searches: usize,
    pub(crate) stages: Vec<StageView>,
    /// What to know and what to turn; empty if all is well.
    pub(crate) advice: Vec<String>,
    /// What each Redis says of itself.
    pub(crate) stores: Vec<String>,
}

/// A stage of a search.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StageView {
    pub(crate) name: String,
    /// Of the whole time, 0 to 1.
    pub(crate) share: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

impl From<Diagnosis> for DiagnosisView {
    fn from(diagnosis: Diagnosis) -> DiagnosisView {
        let Diagnosis { searches, stages, advice, stores } = diagnosis;
        let stages = stages.into_iter().map(|Stage { name, share, p50_us, p99_us }| StageView {
            name: name.to_owned(),
            share,
            p50_us,
            p99_us,
        });
        DiagnosisView { searches, stages: stages.collect(), advice, stores }
    }
}
