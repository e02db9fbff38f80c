//! The interface while the store is being opened: it is alive, not ready, and reports the progress.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Response, StatusCode},
    middleware,
    routing::get,
};

use super::{
    Problem,
    error_code::ErrorCode,
    json::health::{LivenessResponse, ReadinessResponse},
    response, telemetry,
};
use service::Progress;

/// Routes that answer health checks only.
pub(crate) fn startup_router(progress: Arc<Progress>) -> Router {
    let not_ready = move || async move {
        let body = ReadinessResponse { ready: false, notes: vec![progress.message()] };
        let mut response = response::json(StatusCode::SERVICE_UNAVAILABLE, &body);
        response.headers_mut().insert(axum::http::header::RETRY_AFTER, 1.into());
        response
    };
    Router::new()
        .route("/healthz", get(alive))
        .route("/livez", get(alive))
        .route("/readyz", get(not_ready))
        .fallback(starting)
        .layer(middleware::from_fn(telemetry::observe))
}

async fn alive() -> Response<Body> {
    response::json(StatusCode::OK, &LivenessResponse { status: "ok" })
}

async fn starting() -> Problem {
    let detail = "the server is starting: /readyz reports the progress; try again";
    Problem::new(ErrorCode::Starting, detail)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn is_alive_but_not_ready_during_startup() {
        let router = startup_router(Arc::default());
        for (path, status, waits) in [
            ("/healthz", 200, false),
            ("/livez", 200, false),
            ("/readyz", 503, true),
            ("/search?q=a", 503, true),
            ("/", 503, true),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let reply = router.clone().oneshot(request).await.unwrap();
            let not_ready = reply.headers().contains_key("retry-after");
            assert_eq!((reply.status().as_u16(), not_ready), (status, waits), "{path}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(reply.headers()[name], value, "{path}");
            }
        }
    }
}
