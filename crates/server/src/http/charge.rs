//! Responses count against the response budget until the client has read them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};

use super::{Problem, error_code::ErrorCode};
use crate::access::{CallerId, Reservation, ResponseBudget};

/// Bytes up to which a response is sent without a reservation: the number of connections limits such responses.
const UNCHARGED_BYTES: usize = 16 << 10;

/// Extension of responses that [`charge`] leaves alone: they are charged already, or share memory with others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charged;

/// The rejection of a response that does not fit into the budget.
pub(super) fn budget_exhausted() -> Problem {
    let detail = "responses that clients have not read yet hold response_memory_mib, or this caller's share of it: read \
                  pending responses, request less, or try again";
    Problem::new(ErrorCode::ResponseMemory, detail)
}

/// Counts the body of `response`, which is in memory as a whole, until it is written. If it does not fit, the client gets
/// the rejection instead.
pub(super) fn charge(budget: &Arc<ResponseBudget>, caller: CallerId, response: Response) -> Response {
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes > UNCHARGED_BYTES) else { return response };
    if response.extensions().get::<Charged>().is_some() {
        return response;
    }
    match budget.reserve(caller, bytes) {
        Some(reservation) => {
            response.map(|body| Body::new(ChargedBody { body, reservation: Arc::new(reservation) }))
        }
        None => budget_exhausted().into_response(),
    }
}

/// Bytes that keep `reservation` for as long as they are in memory, also in the write buffers of the connection.
pub(super) fn charged_bytes(
    bytes: impl AsRef<[u8]> + Send + 'static,
    reservation: Arc<Reservation>,
) -> Bytes {
    Bytes::from_owner(ChargedBytes { bytes, _reservation: reservation })
}

struct ChargedBytes<B> {
    bytes: B,
    _reservation: Arc<Reservation>,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for ChargedBytes<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

struct ChargedBody {
    body: Body,
    reservation: Arc<Reservation>,
}

impl HttpBody for ChargedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let hold = |bytes: Bytes| charged_bytes(bytes, Arc::clone(&self.reservation));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
