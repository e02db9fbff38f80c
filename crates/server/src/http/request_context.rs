//! The context of a request: caller, deadline and cancellation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use utoipa::IntoParams;

use super::{AppState, Peer, Problem, bounds, error_code::ErrorCode};
use crate::access::{CallerId, ResponseBudget};
use service::{Caller, Context};

/// The header that sets the deadline of a request, in milliseconds from its arrival.
pub(super) const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-timeout-ms");

/// Most milliseconds in that header.
pub(super) const TIMEOUT_MS_MAX: u64 = 60_000;

/// The description of that header.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes the header, which RequestContext reads")]
pub(super) struct TimeoutParam {
    /// Deadline in milliseconds; the server's `timeout_ms` if left out.
    #[param(rename = "X-Timeout-Ms", schema_with = bounds::timeout_ms)]
    timeout_ms: Option<u32>,
}

/// The context of a request. Dropping it cancels the work that the request started, for example when the client hangs
/// up and its handler is dropped.
pub(super) struct RequestContext {
    /// Context of calls to the service.
    pub(super) cx: Context,
    /// Whose share of the response budget the response uses.
    pub(super) caller_id: CallerId,
    /// Memory for responses.
    pub(super) response_budget: Arc<ResponseBudget>,
    /// How long the client may take to read the response.
    pub(super) response_timeout: Duration,
    timeout: Option<Duration>,
    cancel_guard: Option<DropGuard>,
}

impl RequestContext {
    /// The same context with a new deadline, for one batch of a long request.
    pub(super) fn batch(&self) -> Context {
        Context { deadline: self.timeout.map(|timeout| Instant::now() + timeout), ..self.cx.clone() }
    }

    /// Takes the guard out: from now on, dropping the guard cancels the request's work, and dropping `self` does not.
    pub(super) fn take_cancel_guard(&mut self) -> DropGuard {
        self.cancel_guard.take().expect("the guard is taken once")
    }
}

impl FromRequestParts<Arc<AppState>> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<RequestContext, Problem> {
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
                        return Err(Problem::new(ErrorCode::Header, detail).at("X-Timeout-Ms"));
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
        let caller_id = parts.extensions.get().copied().unwrap_or_else(|| CallerId::new(None, None));
        Ok(RequestContext {
            cx,
            caller_id,
            response_budget: Arc::clone(&state.settings.response_budget),
            response_timeout: state.settings.response_timeout,
            timeout,
            cancel_guard: Some(cancel.drop_guard()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl RequestContext {
        /// The context of a request whose response counts against `budget`.
        pub(in crate::http) fn for_tests(
            budget: &Arc<ResponseBudget>,
            response_timeout: Duration,
        ) -> RequestContext {
            let cancel = CancellationToken::new();
            RequestContext {
                cx: Context { caller: Caller::Local, deadline: None, cancel: cancel.clone() },
                caller_id: CallerId::new(None, None),
                response_budget: Arc::clone(budget),
                response_timeout,
                timeout: Some(Duration::from_secs(1)),
                cancel_guard: Some(cancel.drop_guard()),
            }
        }
    }

    fn context() -> RequestContext {
        RequestContext::for_tests(&Arc::default(), Duration::from_secs(1))
    }

    #[test]
    fn dropping_the_context_cancels_what_it_started() {
        let context = context();
        let batch = context.batch();
        assert!(!batch.cancel.is_cancelled() && batch.deadline.is_some());
        drop(context);
        assert!(batch.cancel.is_cancelled());
    }

    #[test]
    fn a_context_without_its_guard_is_cancelled_by_the_guard() {
        let mut context = context();
        let cancel = context.cx.cancel.clone();
        let guard = context.take_cancel_guard();
        drop(context);
        assert!(!cancel.is_cancelled());
        drop(guard);
        assert!(cancel.is_cancelled());
    }
}
