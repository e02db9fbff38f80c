//! The routing table: every operation with its action. The router, access control and `/openapi.json` derive from it.

mod backup;
mod collections;
mod doctor;
mod documents;
mod health;
mod ingest;
mod page;
mod search;

use std::sync::Arc;

use axum::http::{Method, Uri};
use utoipa::openapi::path::PathItem;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};

use super::{AppState, Problem, error_code::ErrorCode, openapi};
use crate::access::Action;

/// Every operation, one per line.
pub(super) fn table() -> RoutingTable {
    RoutingTable::new()
        .route(Action::Search, routes!(search::search))
        .route(Action::Search, routes!(search::kb_search))
        .route(Action::Search, routes!(search::search_collection))
        .route(Action::ListCollections, routes!(collections::list))
        .route(Action::ManageCollections, routes!(collections::put))
        .route(Action::ReadCollection, routes!(collections::get))
        .route(Action::ManageCollections, routes!(collections::delete))
        .route(Action::ListCollections, routes!(collections::list_aliases))
        .route(Action::ManageCollections, routes!(collections::put_alias))
        .route(Action::ManageCollections, routes!(collections::delete_alias))
        .route(Action::ReadStats, routes!(collections::stats))
        .route(Action::Backup, routes!(backup::backup))
        .route(Action::Diagnose, routes!(doctor::doctor))
        .route(Action::WriteDocuments, routes!(ingest::post))
        .route(Action::ReadDocuments, routes!(documents::scroll))
        .route(Action::WriteDocuments, routes!(documents::put))
        .route(Action::ReadDocuments, routes!(documents::get))
        .route(Action::WriteDocuments, routes!(documents::patch))
        .route(Action::WriteDocuments, routes!(documents::delete))
        .route(Action::ReadDocuments, routes!(documents::count))
        .route(Action::WriteDocuments, routes!(documents::delete_matching))
        .route(Action::CheckLiveness, routes!(health::healthz))
        .route(Action::CheckLiveness, routes!(health::livez))
        .route(Action::CheckReadiness, routes!(health::readyz))
        .route(Action::ReadMetrics, routes!(health::metrics))
        .route(Action::ReadApiDescription, routes!(health::openapi))
        .route(Action::ReadPage, routes!(page::index))
        .route(Action::ReadPage, routes!(page::script))
        .route(Action::ReadPage, routes!(page::style))
        .route(Action::ReadPage, routes!(page::icon))
}

/// Handlers, their description and their actions.
pub(super) struct RoutingTable {
    pub(super) router: OpenApiRouter<Arc<AppState>>,
    pub(super) actions: RouteActions,
}

/// The action of every route.
#[derive(Debug, Default)]
pub(super) struct RouteActions(Vec<RouteAction>);

/// The action of a route.
#[derive(Debug)]
pub(super) struct RouteAction {
    pub(super) method: Method,
    /// The path, with its parameters in braces.
    pub(super) path: String,
    pub(super) action: Action,
}

impl RoutingTable {
    fn new() -> RoutingTable {
        RoutingTable {
            router: OpenApiRouter::with_openapi(openapi::base_document()),
            actions: RouteActions::default(),
        }
    }

    fn route(mut self, action: Action, handler: UtoipaMethodRouter<Arc<AppState>>) -> RoutingTable {
        for (path, item) in &handler.1.paths {
            let methods = methods(item);
            self.actions.0.extend(methods.map(|method| RouteAction { method, path: path.clone(), action }));
        }
        self.router = self.router.routes(handler);
        self
    }
}

fn methods(item: &PathItem) -> impl Iterator<Item = Method> {
    [
        (Method::GET, item.get.is_some()),
        (Method::PUT, item.put.is_some()),
        (Method::POST, item.post.is_some()),
        (Method::PATCH, item.patch.is_some()),
        (Method::DELETE, item.delete.is_some()),
    ]
    .into_iter()
    .filter_map(|(method, exists)| exists.then_some(method))
}

impl RouteActions {
    /// The action of a method of the route `path`; [`Action::Unlisted`] if the route has no such method.
    pub(super) fn get(&self, method: &Method, path: &str) -> Action {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let found = self.0.iter().find(|route| route.method == *method && route.path == path);
        found.map_or(Action::Unlisted, |route| route.action)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RouteAction> {
        self.0.iter()
    }
}

/// Answers requests for unknown paths.
pub(super) async fn not_found(uri: Uri) -> Problem {
    let detail = format!("there is no path {:?}: /openapi.json lists all paths", uri.path());
    Problem::new(ErrorCode::PathNotFound, detail)
}

/// Answers requests with a method that the path does not have.
pub(super) async fn method_not_allowed() -> Problem {
    let detail = "the path does not have this method: the Allow header lists those it has";
    Problem::new(ErrorCode::MethodNotAllowed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_one_action_and_unknown_methods_have_none() {
        let RoutingTable { router, actions } = table();
        let (_, api) = router.split_for_parts();
        let mut operations = 0;
        for (path, item) in &api.paths.paths {
            for method in methods(item) {
                assert_ne!(actions.get(&method, path), Action::Unlisted, "{method} {path}");
                operations += 1;
            }
        }
        assert_eq!(actions.iter().count(), operations);
        assert_eq!(actions.get(&Method::HEAD, "/healthz"), Action::CheckLiveness);
        assert_eq!(actions.get(&Method::DELETE, "/search"), Action::Unlisted);
        assert_eq!(actions.get(&Method::GET, "/nowhere"), Action::Unlisted);
    }
}
