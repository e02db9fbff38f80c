//! The HTTP door: translates requests into verbs of [`Service`] and answers into JSON.
//!
//! Free of sockets: [`router`] answers requests wherever they come from, `crate::serve` brings
//! those from the network.

mod admission;
mod auth;
mod body;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod json;
mod load_shedding;
mod minimum_rate;
mod ndjson;
mod openapi;
mod path;
mod policy;
mod precondition;
mod problem;
mod query;
mod rate_limits;
mod request_context;
mod response;
mod routes;
mod startup;
mod telemetry;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, http::HeaderValue, middleware};
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;
use tower_http::{catch_panic::CatchPanicLayer, cors};

pub use auth::ApiKeys;
pub use json::doctor::DiagnosisResponse;
pub(crate) use load_shedding::RequestHandler;
pub(crate) use minimum_rate::MinimumRate;
pub use problem::Problem;
pub(crate) use startup::startup_router;
pub use telemetry::describe_metrics;
pub(crate) use telemetry::{CONNECTIONS, SECONDS_BUCKETS};

use service::Service;

use crate::access::Origin;

/// Address of the client; an extension of requests that came over a socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Extension of requests that came while there was no room (or while the server is stopping):
/// only questions about health are answered.
#[derive(Clone, Copy, Debug)]
pub struct HealthOnly;

/// What is said over a connection for which there is no room at all.
pub(crate) fn too_many_connections() -> bytes::Bytes {
    admission::too_many_connections().raw_response()
}

/// How the door behaves.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Keys that open the door; without any, only requests to a loopback name are answered.
    pub api_keys: Arc<ArcSwap<ApiKeys>>,
    /// Wrong keys a minute after which no key of their address is looked at.
    pub wrong_keys_max: u32,
    /// Requests a second of one key, or without keys of one address; no limit, if 0.
    pub rate_limit: u32,
    /// Networks whose word on where a request came from is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may read answers.
    pub cors_origins: Vec<Origin>,
    /// How long a body may stand still.
    pub body_timeout: Duration,
    /// How long a stream's batch waits for room in the service.
    pub overload_retry_timeout: Duration,
    /// What `/metrics` shows.
    pub metrics: Option<PrometheusHandle>,
    /// Fires when the server begins to stop: `/readyz` then answers 503.
    pub stopping: CancellationToken,
}

impl Default for HttpSettings {
    /// For requests made within the process.
    fn default() -> HttpSettings {
        HttpSettings {
            api_keys: Arc::default(),
            wrong_keys_max: 10,
            rate_limit: 0,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            body_timeout: Duration::from_secs(30),
            overload_retry_timeout: Duration::from_secs(30),
            metrics: None,
            stopping: CancellationToken::new(),
        }
    }
}

/// What handlers share.
#[derive(Debug)]
struct AppState {
    service: Service,
    settings: HttpSettings,
    limits: rate_limits::RateLimits,
    /// The document behind `/openapi.json`.
    openapi: bytes::Bytes,
}

/// The routes over `service`.
pub fn router(service: Service, settings: HttpSettings) -> Router {
    let (routes, openapi) = routes::table().split_for_parts();
    let cors = option_layer((!settings.cors_origins.is_empty()).then(|| cors(&settings.cors_origins)));
    let limits = rate_limits::RateLimits::new(settings.wrong_keys_max, settings.rate_limit);
    let state = Arc::new(AppState { service, settings, limits, openapi: openapi::document(openapi) });
    routes
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), admission::admit))
        .layer(cors)
        .layer(CatchPanicLayer::custom(problem::panic_response))
        .layer(middleware::from_fn(telemetry::observe))
        .with_state(state)
}

fn cors(origins: &[Origin]) -> cors::CorsLayer {
    use axum::http::{Method, header};
    let origins: Vec<HeaderValue> = origins
        .iter()
        .map(|origin| HeaderValue::from_str(origin.as_str()).expect("an origin is a scheme and an authority"))
        .collect();
    cors::CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            request_context::TIMEOUT_HEADER,
            auth::KEY_HEADER,
        ])
        .expose_headers([header::ETAG, header::RETRY_AFTER, response::SERVER_TIMING])
        .max_age(Duration::from_secs(600))
}
