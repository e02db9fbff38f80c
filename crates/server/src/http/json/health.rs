//! Health checks.

use serde::Serialize;
use utoipa::ToSchema;

/// The process is alive.
#[derive(Serialize, ToSchema)]
pub(crate) struct LivenessResponse {
    #[schema(value_type = String)]
    pub(crate) status: &'static str,
}

/// Whether searches and writes are served.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReadinessResponse {
    pub(crate) ready: bool,
    /// Why not, or which work is still in progress.
    pub(crate) notes: Vec<String>,
}
