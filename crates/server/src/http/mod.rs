//! The HTTP interface: translates requests into calls of [`Service`] and results into JSON.
//!
//! Independent of sockets: [`router`] answers requests from any source, and `crate::serve` feeds it those from the
//! network.

mod admission;
mod body;
mod bounds;
mod charge;
mod error_code;
mod forwarded;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod json;
mod json_stream;
mod key_header;
mod load_shedding;
mod minimum_rate;
mod ndjson;
mod openapi;
mod origin;
mod params;
mod path;
mod precondition;
mod problem;
mod request_context;
mod response;
mod routes;
mod startup;
mod telemetry;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::HeaderValue, middleware};
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;
use tower_http::{catch_panic::CatchPanicLayer, cors};

pub(crate) use forwarded::is_trusted_proxy;
pub use json::doctor::DiagnosisResponse;
pub(crate) use load_shedding::RequestHandler;
pub(crate) use minimum_rate::MinimumRate;
pub use origin::Origin;
pub use problem::Problem;
pub(crate) use startup::startup_router;
pub use telemetry::describe_metrics;
pub(crate) use telemetry::{CONNECTIONS, EVICTED_CONNECTIONS, SECONDS_BUCKETS};

use service::Service;

use crate::access::{AccessControl, ResponseBudget};

/// Address of the client; an extension of requests that came over a socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Extension of requests on connections beyond the limit, or while the server is stopping: only health checks are
/// answered.
#[derive(Clone, Copy, Debug)]
pub struct HealthOnly;

/// Whether a connection has a valid API key; an extension of its requests. On a server without keys, whether it has made
/// a request that would need one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authenticated(Arc<AtomicBool>);

impl Authenticated {
    /// From now on it has.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The raw HTTP response to a connection that cannot even be used for health checks.
pub(crate) fn too_many_connections() -> bytes::Bytes {
    admission::too_many_connections().raw_response()
}

/// Settings of the HTTP interface.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Keys and limits; without keys, only requests to a loopback name are answered.
    pub access: Arc<AccessControl>,
    /// Networks of proxies whose `X-Forwarded-For` and `Forwarded` are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose web pages may read responses and change data.
    pub cors_origins: Vec<Origin>,
    /// How long a request body may pause.
    pub body_timeout: Duration,
    /// Memory for responses that clients have not read yet.
    pub response_budget: Arc<ResponseBudget>,
    /// How long a client may take to read a response that is too large to be written at once.
    pub response_timeout: Duration,
    /// How long a batch of a document stream is retried while the service is overloaded.
    pub overload_retry_timeout: Duration,
    /// The recorder behind `/metrics`.
    pub metrics: Option<PrometheusHandle>,
    /// Fires when the server begins to stop: `/readyz` then answers 503.
    pub stopping: CancellationToken,
}

impl Default for HttpSettings {
    /// For requests made within the process.
    fn default() -> HttpSettings {
        HttpSettings {
            access: Arc::default(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            body_timeout: Duration::from_secs(30),
            response_budget: Arc::default(),
            response_timeout: Duration::from_secs(120),
            overload_retry_timeout: Duration::from_secs(30),
            metrics: None,
            stopping: CancellationToken::new(),
        }
    }
}

/// Pages of documents that are read at the same time. Each may be 16 MiB that the response budget does not count yet.
const PAGES_MAX: usize = 2;

/// State shared by all handlers.
#[derive(Debug)]
struct AppState {
    service: Service,
    settings: HttpSettings,
    actions: routes::RouteActions,
    proxies: forwarded::TrustedProxies,
    /// For reading pages of documents.
    page_permits: Semaphore,
    /// The document behind `/openapi.json`.
    openapi: bytes::Bytes,
}

impl AppState {
    fn new(service: Service, settings: HttpSettings) -> Arc<AppState> {
        let routes::RoutingTable { router, actions } = routes::table();
        let openapi = openapi::document(router.into_openapi());
        let proxies = forwarded::TrustedProxies::new(settings.trusted_proxies.clone());
        let page_permits = Semaphore::new(PAGES_MAX);
        Arc::new(AppState { service, settings, actions, proxies, page_permits, openapi })
    }
}

/// The routes over `service`.
pub fn router(service: Service, settings: HttpSettings) -> Router {
    router_over(&AppState::new(service, settings))
}

fn router_over(state: &Arc<AppState>) -> Router {
    let (routes, _) = routes::table().router.split_for_parts();
    let origins = &state.settings.cors_origins;
    let cors = option_layer((!origins.is_empty()).then(|| cors(origins)));
    routes
        .fallback(routes::not_found)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(state), admission::admit))
        .layer(cors)
        .layer(CatchPanicLayer::custom(problem::panic_response))
        .layer(middleware::from_fn(telemetry::observe))
        .with_state(Arc::clone(state))
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
            key_header::KEY_HEADER,
        ])
        .expose_headers([header::ETAG, header::RETRY_AFTER, response::SERVER_TIMING])
        .max_age(Duration::from_secs(600))
}
