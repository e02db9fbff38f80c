//! Early rejection of searches: while the service is overloaded, requests that would be shed are answered before they
//! reach the router. At ten times the sustainable load, answering rejections must cost next to nothing.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use metrics::Counter;
use tower::Service as _;

use super::{AppState, HttpSettings, Problem, router_over, routes::RouteActions, telemetry};
use crate::access::{Action, LoadShedder};
use service::Service;

/// Extension of shed requests that `admission` rejects: those of web pages, because a page of another origin can read the
/// response only with the CORS headers that the router adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shed;

/// Answers requests that come over a socket.
#[derive(Clone)]
pub(crate) struct RequestHandler {
    router: Router,
    shedding: Option<Arc<Shedding>>,
}

impl RequestHandler {
    /// Answers with `router` alone.
    pub(crate) fn without_shedding(router: Router) -> RequestHandler {
        RequestHandler { router, shedding: None }
    }

    /// Answers with the routes over `service`, shedding load.
    pub(crate) fn new(service: Service, settings: HttpSettings) -> RequestHandler {
        let shedder = LoadShedder::new(service.clone());
        let state = AppState::new(service, settings);
        RequestHandler::with_shedder(router_over(&state), shedder, &state.actions)
    }

    fn with_shedder(router: Router, shedder: LoadShedder, actions: &RouteActions) -> RequestHandler {
        RequestHandler { router, shedding: Some(Arc::new(Shedding::new(shedder, actions))) }
    }

    /// Answers a request.
    pub(crate) async fn handle(&self, mut request: Request) -> Result<Response<Body>, Infallible> {
        if let Some(shedding) = &self.shedding
            && let Some(route) = shedding.shed_route(&request)
        {
            if !request.headers().contains_key(header::ORIGIN) {
                return Ok(shedding.rejection(route));
            }
            request.extensions_mut().insert(Shed);
        }
        self.router.clone().call(request).await
    }
}

struct Shedding {
    shedder: LoadShedder,
    routes: Vec<SheddableRoute>,
    /// The rejection, built once.
    headers: HeaderMap,
    body: Bytes,
}

/// A route whose requests may be shed.
struct SheddableRoute {
    method: Method,
    path: String,
    action: Action,
    shed_requests: Counter,
}

impl SheddableRoute {
    fn matches(&self, method: &Method, path: &str) -> bool {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        *method == self.method && matches_pattern(&self.path, path)
    }
}

/// Whether `path` has the segments of `pattern`, in which `{name}` matches any segment.
fn matches_pattern(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(expected), Some(segment)) if expected.starts_with('{') || expected == segment => (),
            _ => return false,
        }
    }
}

impl Shedding {
    fn new(shedder: LoadShedder, actions: &RouteActions) -> Shedding {
        let routes = actions.iter().filter(|route| route.action.is_sheddable()).map(|route| SheddableRoute {
            method: route.method.clone(),
            path: route.path.clone(),
            action: route.action,
            shed_requests: telemetry::response_counter(
                &route.method,
                &route.path,
                StatusCode::SERVICE_UNAVAILABLE,
            ),
        });
        let (mut headers, body) = Problem::from(Service::overloaded()).parts();
        telemetry::add_security_headers(&mut headers);
        Shedding { shedder, routes: routes.collect(), headers, body }
    }

    /// The route of a request that is to be shed.
    fn shed_route(&self, request: &Request) -> Option<&SheddableRoute> {
        let (method, path) = (request.method(), request.uri().path());
        let route = self.routes.iter().find(|route| route.matches(method, path))?;
        self.shedder.sheds(route.action).then_some(route)
    }

    fn rejection(&self, route: &SheddableRoute) -> Response<Body> {
        route.shed_requests.increment(1);
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, routing::any};

    use super::*;
    use service::Config;

    use crate::http::{Origin, router, routes};

    fn handler(router: Router, is_overloaded: bool) -> RequestHandler {
        RequestHandler::with_shedder(
            router,
            LoadShedder::with(move || is_overloaded),
            &routes::table().actions,
        )
    }

    async fn status(handler: &RequestHandler, method: &str, path: &str) -> u16 {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        handler.handle(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn only_searches_are_shed_under_overload() {
        let routes = || Router::new().fallback(any(|| async {}));
        let (overloaded, idle) = (handler(routes(), true), handler(routes(), false));
        for (method, path, is_search) in [
            ("GET", "/search?q=a", true),
            ("HEAD", "/search", true),
            ("GET", "/kb/search?q=a", true),
            ("POST", "/collections/kb/search", true),
            ("POST", "/search", false),
            ("GET", "/collections/kb/search", false),
            ("POST", "/collections/a/b/search", false),
            ("POST", "/collections/kb/documents/search", false),
            ("GET", "/healthz", false),
            ("GET", "/collections", false),
        ] {
            assert_eq!(
                status(&overloaded, method, path).await,
                if is_search { 503 } else { 200 },
                "{method} {path}"
            );
            assert_eq!(status(&idle, method, path).await, 200, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn a_page_of_a_listed_origin_can_read_the_rejection() {
        const PAGE: &str = "https://app.example.com";
        let home = tempfile::TempDir::new().unwrap();
        let config = Config::new(home.path().join("data"), home.path().join("models"));
        let service = Service::open(config).unwrap();
        let cors_origins = vec![Origin::new(PAGE).unwrap()];
        let routes = router(service.clone(), HttpSettings { cors_origins, ..HttpSettings::default() });
        let handler = handler(routes, true);
        for (method, path) in
            [("GET", "/search?q=a"), ("GET", "/kb/search?q=a"), ("POST", "/collections/kb/search")]
        {
            for (origin, can_read) in [(PAGE, true), ("https://other.example.com", false)] {
                let request = Request::builder().method(method).uri(path).header("origin", origin);
                let response = handler.handle(request.body(Body::empty()).unwrap()).await.unwrap();
                assert_eq!(response.status(), 503, "{method} {path} from {origin}");
                let headers = response.headers();
                assert_eq!(headers["retry-after"], "1");
                assert_eq!(headers["x-content-type-options"], "nosniff");
                let allowed = headers.get("access-control-allow-origin");
                assert_eq!(allowed.is_some_and(|allowed| allowed == PAGE), can_read, "{method} {path}");
                let exposed = headers.get("access-control-expose-headers");
                assert!(exposed.is_some_and(|names| names.to_str().unwrap().contains("retry-after")));
            }
        }
        service.close();
    }

    #[tokio::test]
    async fn the_rejection_is_a_problem_with_security_headers() {
        let handler = handler(Router::new(), true);
        let request = Request::get("/search?q=a").body(Body::empty()).unwrap();
        let response = handler.handle(request).await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["retry-after"], "1");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"overloaded".into(), &503.into()));
    }
}
