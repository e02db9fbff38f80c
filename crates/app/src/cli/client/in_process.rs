//! Calls the HTTP routes in this process, without a socket.

use std::{io::Write, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    http::{Request, header},
    response::Response,
};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use super::message::{self, ApiRequest, ApiResponse};
use crate::config::Settings;
use server::http::{self, HttpSettings};
use service::Service;

/// Deadlines protect a server from clients that no longer wait. This caller waits until the end.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A service in this process.
#[derive(Debug)]
pub(crate) struct InProcess {
    runtime: Runtime,
    router: Router,
    service: Service,
}

impl InProcess {
    /// Opens the store.
    pub(super) fn open(settings: &Settings) -> anyhow::Result<InProcess> {
        let service =
            Service::open(service::Config { timeout: TIMEOUT, queue_wait: TIMEOUT, ..settings.service() })?;
        // The routes only parse and wait; the service has its own threads.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("nearfield-cli")
            .enable_all()
            .build()
            .context("starting the threads that handle requests")?;
        let router = http::router(service.clone(), HttpSettings::default());
        Ok(InProcess { runtime, router, service })
    }

    /// Executes a request.
    pub(super) fn execute(&self, call: &ApiRequest<'_>) -> anyhow::Result<ApiResponse> {
        let mut builder = Request::builder()
            .method(call.method.clone())
            .uri(call.path)
            .header(header::ACCEPT, "application/json");
        let body = match call.body {
            Some((content_type, body)) => {
                builder = builder.header(header::CONTENT_TYPE, content_type);
                Body::from(body.to_vec())
            }
            None => Body::empty(),
        };
        let request = builder.body(body).context("building a request")?;
        self.runtime.block_on(async { read_response(self.route(request).await).await })
    }

    /// Writes the body of a response to `out` as it arrives.
    pub(super) fn download(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let request = Request::get(path).body(Body::empty()).context("building a request")?;
        self.runtime.block_on(async {
            let mut response = self.route(request).await;
            if !response.status().is_success() {
                return read_response(response).await?.error_for_status().map(drop).map_err(Into::into);
            }
            while let Some(frame) = response.body_mut().frame().await {
                if let Ok(chunk) = frame.context("reading a response")?.into_data() {
                    out.write_all(&chunk)?;
                }
            }
            Ok(())
        })
    }

    async fn route(&self, request: Request<Body>) -> Response {
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Reads a response to its end.
async fn read_response(response: Response) -> anyhow::Result<ApiResponse> {
    let (head, body) = response.into_parts();
    Ok(ApiResponse {
        status: head.status.as_u16(),
        retry_after: message::retry_after(&head.headers),
        body: body.collect().await.context("reading a response")?.to_bytes().into(),
    })
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.service.close();
    }
}
