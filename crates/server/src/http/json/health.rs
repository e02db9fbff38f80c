//! Health.

use serde::Serialize;
use utoipa::ToSchema;

/// That the process answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct LivenessResponse {
    #[schema(value_type = String)]
    pub(crate) status: &'static str,
}

/// Whether searches are answered correctly and writes are taken.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReadinessResponse {
    pub(crate) ready: bool,
    /// Why not, or what is still being caught up.
    pub(crate) notes: Vec<String>,
}
