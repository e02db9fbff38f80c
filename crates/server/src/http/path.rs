//! Names in the path.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::IntoParams;

use super::{AppState, Problem, bounds, error_code::ErrorCode};

/// The percent-decoded names in the path. Names that are not UTF-8 are rejected.
pub(super) struct Path<T>(pub(super) T);

/// The path of a collection.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct CollectionPath {
    /// Name or alias of the collection.
    #[serde(rename = "c")]
    #[param(schema_with = bounds::collection_name)]
    pub(super) collection: String,
}

/// The path of a document.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DocumentPath {
    /// Name or alias of the collection.
    #[serde(rename = "c")]
    #[param(schema_with = bounds::collection_name)]
    pub(super) collection: String,
    /// Id of the document.
    #[param(schema_with = bounds::document_id)]
    pub(super) id: String,
}

/// The path of an alias.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AliasPath {
    /// Name of the alias.
    #[serde(rename = "a")]
    #[param(schema_with = bounds::collection_name)]
    pub(super) alias: String,
}

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<AppState>> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Path<T>, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(names)) => Ok(Path(names)),
            Err(rejection) => Err(Problem::new(ErrorCode::Path, rejection.body_text()).at("path")),
        }
    }
}
