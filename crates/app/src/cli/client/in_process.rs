//! Calls of the same routes, in this process, without a socket.

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

use super::{Call, Reply};
use crate::config::Settings;
use server::http::{self, HttpSettings};
use service::Service;

/// A deadline protects a server from clients that have given up; the one caller here waits.
const TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The service, opened here.
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
        // The routes only parse and wait; the service has its own threads for the work.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("nearfield-cli")
            .enable_all()
            .build()
            .context("starting the threads that answer calls")?;
        let router = http::router(service.clone(), HttpSettings::default());
        Ok(InProcess { runtime, router, service })
    }

    /// Makes a call.
    pub(super) fn call(&self, call: &Call<'_>) -> anyhow::Result<Reply> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.path)
            .header(header::ACCEPT, "application/json");
        let body = match call.body {
            Some((content_type, body)) => {
                request = request.header(header::CONTENT_TYPE, content_type);
                Body::from(body.to_vec())
            }
            None => Body::empty(),
        };
        let request = request.body(body).context("making a call")?;
        self.runtime.block_on(async { whole(self.answer(request).await).await })
    }

    /// Writes the body of an answer to `out` as it comes.
    pub(super) fn download(&self, path: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let request = Request::get(path).body(Body::empty()).context("making a call")?;
        self.runtime.block_on(async {
            let mut answer = self.answer(request).await;
            if !answer.status().is_success() {
                return whole(answer).await?.accept().map(drop).map_err(Into::into);
            }
            while let Some(frame) = answer.body_mut().frame().await {
                if let Ok(piece) = frame.context("reading an answer")?.into_data() {
                    out.write_all(&piece)?;
                }
            }
            Ok(())
        })
    }

    async fn answer(&self, request: Request<Body>) -> Response {
        match self.router.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// An answer read to its end.
async fn whole(answer: Response) -> anyhow::Result<Reply> {
    let (head, body) = answer.into_parts();
    Ok(Reply {
        status: head.status.as_u16(),
        retry_after: super::retry_after(&head.headers),
        body: body.collect().await.context("reading an answer")?.to_bytes().into(),
    })
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.service.close();
    }
}
