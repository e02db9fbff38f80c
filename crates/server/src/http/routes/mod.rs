//! The table of routes, from which both the router and `/openapi.json` come.

mod backup;
mod collections;
mod doctor;
mod documents;
mod health;
mod ingest;
mod page;
mod search;

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AppState, Problem, openapi};

/// Every route.
pub(super) fn table() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(search::search))
        .routes(routes!(search::kb_search))
        .routes(routes!(search::search_collection))
        .routes(routes!(collections::list))
        .routes(routes!(collections::put, collections::get, collections::delete))
        .routes(routes!(collections::put_alias, collections::delete_alias))
        .routes(routes!(collections::stats))
        .routes(routes!(backup::backup))
        .routes(routes!(doctor::doctor))
        .routes(routes!(ingest::post, documents::scroll))
        .routes(routes!(documents::put, documents::get, documents::patch, documents::delete))
        .routes(routes!(documents::count))
        .routes(routes!(documents::delete_matching))
        .routes(routes!(health::healthz))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi))
        .routes(routes!(page::index))
        .routes(routes!(page::script))
        .routes(routes!(page::style))
        .routes(routes!(page::icon))
}

/// Where there is no such path.
pub(super) async fn not_found(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {:?}: /openapi.json tells what there is", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "path-not-found", detail)
}

/// Where a path has no such method.
pub(super) async fn method_not_allowed() -> Problem {
    let detail = "this path has no such method: the Allow header names those it has";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}
