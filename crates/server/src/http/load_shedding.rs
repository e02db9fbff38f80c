//! The gate before the routes: turns searches away before anything is done for them, while more wait than can be
//! answered in time. At ten times the load that can be carried, what is left for answers is what refusals leave.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use metrics::Counter;
use tower::Service as _;

use super::{Problem, telemetry};
use service::Service;

/// Extension of searches that are turned away further in: a page of another origin may read why only with the headers
/// that its answer gets there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shed;

/// What answers requests that come over a socket.
#[derive(Clone)]
pub(crate) struct RequestHandler {
    router: Router,
    shedder: Option<Arc<LoadShedder>>,
}

impl RequestHandler {
    /// Routes that ask nobody for room.
    pub(crate) fn without_shedding(router: Router) -> RequestHandler {
        RequestHandler { router, shedder: None }
    }

    /// The routes over `service`, behind a gate.
    pub(crate) fn with_shedding(router: Router, service: Service) -> RequestHandler {
        RequestHandler::with_shedding_if(router, move || service.refuses_searches())
    }

    fn with_shedding_if(
        router: Router,
        refuses: impl Fn() -> bool + Send + Sync + 'static,
    ) -> RequestHandler {
        RequestHandler { router, shedder: Some(Arc::new(LoadShedder::new(Box::new(refuses)))) }
    }

    /// Answers a request.
    pub(crate) async fn handle(&self, mut request: Request) -> Result<Response<Body>, Infallible> {
        if let Some(shedder) = &self.shedder
            && let Some(searched) = shedder.refuses(&request)
        {
            if !request.headers().contains_key(header::ORIGIN) {
                return Ok(shedder.refusal(searched));
            }
            request.extensions_mut().insert(Shed);
        }
        self.router.clone().call(request).await
    }
}

struct LoadShedder {
    /// Whether a search that comes now is refused.
    refuses: Box<dyn Fn() -> bool + Send + Sync>,
    /// The refusal, made once.
    headers: HeaderMap,
    body: Bytes,
    refused: [Counter; SearchRoute::ALL.len()],
}

/// A route that searches.
#[derive(Clone, Copy)]
enum SearchRoute {
    Articles,
    KnowledgeBase,
    Collection,
}

impl SearchRoute {
    const ALL: [SearchRoute; 3] =
        [SearchRoute::Articles, SearchRoute::KnowledgeBase, SearchRoute::Collection];

    fn of(method: &Method, path: &str) -> Option<SearchRoute> {
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/search") => Some(SearchRoute::Articles),
            (&Method::GET | &Method::HEAD, "/kb/search") => Some(SearchRoute::KnowledgeBase),
            (&Method::POST, _) => {
                let name = path.strip_prefix("/collections/")?.strip_suffix("/search")?;
                (!name.contains('/')).then_some(SearchRoute::Collection)
            }
            _ => None,
        }
    }

    /// Method and route, as they are counted.
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            SearchRoute::Articles => ("GET", "/search"),
            SearchRoute::KnowledgeBase => ("GET", "/kb/search"),
            SearchRoute::Collection => ("POST", "/collections/{c}/search"),
        }
    }
}

impl LoadShedder {
    fn new(refuses: Box<dyn Fn() -> bool + Send + Sync>) -> LoadShedder {
        let refused = SearchRoute::ALL.map(|searched| {
            let (method, route) = searched.labels();
            telemetry::requests(method, route, StatusCode::SERVICE_UNAVAILABLE)
        });
        let (mut headers, body) = Problem::from(Service::overloaded()).parts();
        telemetry::add_security_headers(&mut headers);
        LoadShedder { refuses, headers, body, refused }
    }

    /// What is searched by a request that is refused.
    fn refuses(&self, request: &Request) -> Option<SearchRoute> {
        SearchRoute::of(request.method(), request.uri().path()).filter(|_| (self.refuses)())
    }

    fn refusal(&self, searched: SearchRoute) -> Response<Body> {
        self.refused[searched as usize].increment(1);
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

    use crate::access::Origin;
    use crate::http::{HttpSettings, router};

    async fn status(app: &RequestHandler, method: &str, path: &str) -> u16 {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        app.handle(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn searches_are_turned_away_while_there_is_no_room_and_nothing_else_is() {
        let routes = || Router::new().fallback(any(|| async {}));
        let (closed, wide) = (
            RequestHandler::with_shedding_if(routes(), || true),
            RequestHandler::with_shedding_if(routes(), || false),
        );
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
                status(&closed, method, path).await,
                if is_search { 503 } else { 200 },
                "{method} {path}"
            );
            assert_eq!(status(&wide, method, path).await, 200, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn a_page_of_a_listed_origin_may_read_that_it_is_turned_away() {
        const PAGE: &str = "https://app.example.com";
        let home = tempfile::TempDir::new().unwrap();
        let config = Config::new(home.path().join("data"), home.path().join("models"));
        let service = Service::open(config).unwrap();
        let cors_origins = vec![Origin::new(PAGE).unwrap()];
        let routes = router(service.clone(), HttpSettings { cors_origins, ..HttpSettings::default() });
        let app = RequestHandler::with_shedding_if(routes, || true);
        for (method, path) in
            [("GET", "/search?q=a"), ("GET", "/kb/search?q=a"), ("POST", "/collections/kb/search")]
        {
            for (origin, may_read) in [(PAGE, true), ("https://other.example.com", false)] {
                let request = Request::builder().method(method).uri(path).header("origin", origin);
                let response = app.handle(request.body(Body::empty()).unwrap()).await.unwrap();
                assert_eq!(response.status(), 503, "{method} {path} from {origin}");
                let headers = response.headers();
                assert_eq!(headers["retry-after"], "1");
                assert_eq!(headers["x-content-type-options"], "nosniff");
                let allowed = headers.get("access-control-allow-origin");
                assert_eq!(allowed.is_some_and(|allowed| allowed == PAGE), may_read, "{method} {path}");
                let exposed = headers.get("access-control-expose-headers");
                assert!(exposed.is_some_and(|names| names.to_str().unwrap().contains("retry-after")));
            }
        }
        service.close();
    }

    #[tokio::test]
    async fn the_refusal_is_a_problem_dressed_as_all_answers_are() {
        let app = RequestHandler::with_shedding_if(Router::new(), || true);
        let request = Request::get("/search?q=a").body(Body::empty()).unwrap();
        let response = app.handle(request).await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["retry-after"], "1");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"overloaded".into(), &503.into()));
    }
}
