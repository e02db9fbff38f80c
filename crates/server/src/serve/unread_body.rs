//! Requests that are answered before their body is read.
//!
//! Hyper then closes the connection without saying so, and a client that sends its next request finds it broken. Here, the
//! rest of a small body is read before the response, so that the connection stays usable; otherwise the response announces
//! the end of the connection.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;

/// Bytes of a body that are read and discarded, so that the connection stays open.
const DISCARDED_BYTES_MAX: u64 = 64 << 10;

/// How long that may take. Most clients have sent such a body by the time its head is answered.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(200);

/// What became of the body of a request.
enum Progress {
    /// Somebody may still read it.
    InUse,
    Ended,
    Dropped(Incoming),
}

/// What became of the body of a request.
#[derive(Clone)]
pub(super) struct BodyProgress(Arc<Mutex<Progress>>);

/// `incoming`, and what becomes of it; `None` if it is empty.
pub(super) fn observe(incoming: Incoming) -> (Body, Option<BodyProgress>) {
    if incoming.is_end_stream() {
        return (Body::new(incoming), None);
    }
    let progress = BodyProgress(Arc::new(Mutex::new(Progress::InUse)));
    (Body::new(ObservedBody { incoming: Some(incoming), progress: progress.clone() }), Some(progress))
}

impl BodyProgress {
    /// Reads the rest of a body that was dropped, if it is short; `false` if the connection cannot be used afterwards.
    /// If the client waits for `100 Continue` (`expects_continue`), its body is not requested.
    pub(super) async fn discard_rest(&self, expects_continue: bool) -> bool {
        let progress = mem::replace(&mut *self.0.lock(), Progress::InUse);
        match progress {
            Progress::Ended => true,
            Progress::InUse => false,
            Progress::Dropped(_) if expects_continue => false,
            Progress::Dropped(incoming) => {
                tokio::time::timeout(DISCARD_TIMEOUT, discard(incoming)).await.unwrap_or(false)
            }
        }
    }
}

/// Whether the end of the body is reached within the limit.
async fn discard(mut incoming: Incoming) -> bool {
    let mut left = DISCARDED_BYTES_MAX;
    if incoming.size_hint().lower() > left {
        return false;
    }
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

struct ObservedBody {
    /// `None` at the end.
    incoming: Option<Incoming>,
    progress: BodyProgress,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if frame.is_none() {
            self.incoming = None;
            *self.progress.0.lock() = Progress::Ended;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        *self.progress.0.lock() =
            if incoming.is_end_stream() { Progress::Ended } else { Progress::Dropped(incoming) };
    }
}
