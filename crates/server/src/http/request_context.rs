//! The context of a request: who calls, how long they wait, and whether they are still there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{AppState, Peer, Problem};
use service::{Caller, Context};

/// The header that sets a request's deadline, in milliseconds from its arrival.
pub(super) const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-timeout-ms");

const TIMEOUT_MS_MAX: u64 = 60_000;

/// A call in progress. Dropped, for one because the client hung up and its handler with it, it
/// cancels what it started.
pub(super) struct RequestContext {
    /// What verbs are called with.
    pub(super) cx: Context,
    timeout: Option<Duration>,
    cancel_guard: Option<DropGuard>,
}

impl RequestContext {
    /// The same caller with a new deadline, for work in batches: each may take as long as a request.
    pub(super) fn batch(&self) -> Context {
        Context { deadline: self.timeout.map(|timeout| Instant::now() + timeout), ..self.cx.clone() }
    }

    /// Gives the guard away: from here on, whoever drops it cancels the call.
    pub(super) fn take_cancel_guard(&mut self) -> DropGuard {
        self.cancel_guard.take().expect("a request is handed over once")
    }
}

impl FromRequestParts<Arc<AppState>> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _door: &Arc<AppState>) -> Result<RequestContext, Problem> {
        let caller = match parts.extensions.get::<Peer>() {
            Some(&Peer(peer)) => Caller::Remote { peer },
            None => Caller::Local,
        };
        let timeout = match parts.headers.get(TIMEOUT_HEADER) {
            None => None,
            Some(value) => {
                let ms = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
                match ms.filter(|ms| (1..=TIMEOUT_MS_MAX).contains(ms)) {
                    Some(ms) => Some(Duration::from_millis(ms)),
                    None => {
                        let detail =
                            format!("X-Timeout-Ms must be a whole number from 1 to {TIMEOUT_MS_MAX}");
                        return Err(Problem::bad_request("header", detail).at("X-Timeout-Ms"));
                    }
                }
            }
        };
        let cancel = CancellationToken::new();
        let cx = Context {
            caller,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            cancel: cancel.clone(),
        };
        Ok(RequestContext { cx, timeout, cancel_guard: Some(cancel.drop_guard()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestContext {
        let cancel = CancellationToken::new();
        let cx = Context { caller: Caller::Local, deadline: None, cancel: cancel.clone() };
        RequestContext { cx, timeout: Some(Duration::from_secs(1)), cancel_guard: Some(cancel.drop_guard()) }
    }

    #[test]
    fn a_handler_that_is_dropped_cancels_what_it_started() {
        let request = request();
        let started = request.batch();
        assert!(!started.cancel.is_cancelled() && started.deadline.is_some());
        drop(request);
        assert!(started.cancel.is_cancelled());
    }

    #[test]
    fn a_call_that_was_handed_over_lasts_as_long_as_its_guard() {
        let mut request = request();
        let cancel = request.cx.cancel.clone();
        let precondition = request.take_cancel_guard();
        drop(request);
        assert!(!cancel.is_cancelled());
        drop(precondition);
        assert!(cancel.is_cancelled());
    }
}
