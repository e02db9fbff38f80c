//! Timeouts for the head of a request, and for idle connections.
//!
//! Hyper has one timeout for both, which starts at the end of a response. This timer distinguishes them: it knows
//! whether a head has begun, so that pooled connections may be idle for much longer than a head may take.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderTimeouts {
    /// From the first byte of a head to its last; for the first head, from the start of the connection.
    pub(super) head: Duration,
    /// From the end of a response to the first byte of the next head, if longer than `head`.
    pub(super) idle: Duration,
}

/// Hyper's timer for heads.
#[derive(Debug)]
pub(super) struct HeaderTimer {
    timeouts: HeaderTimeouts,
    is_first: AtomicBool,
    /// Whether bytes arrived since the last deadline was set.
    has_begun: Arc<AtomicBool>,
}

impl HeaderTimer {
    pub(super) fn new(timeouts: HeaderTimeouts) -> HeaderTimer {
        HeaderTimer { timeouts, is_first: AtomicBool::new(true), has_begun: Arc::default() }
    }

    /// A function to call with the bytes read from the connection.
    pub(super) fn read_observer(&self) -> impl FnMut(&[u8]) + Send + use<> {
        let has_begun = Arc::clone(&self.has_begun);
        move |bytes| {
            if !bytes.is_empty() {
                has_begun.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Completes when the next head is overdue.
    fn deadline(&self) -> Pin<Box<dyn Sleep>> {
        let is_first = self.is_first.swap(false, Ordering::Relaxed);
        self.has_begun.store(false, Ordering::Relaxed);
        let HeaderTimeouts { head, idle } = self.timeouts;
        let wait = if is_first { head } else { idle.max(head) };
        Box::pin(HeaderDeadline {
            sleep: Box::pin(tokio::time::sleep(wait)),
            head: (!is_first).then_some(head),
            has_begun: Arc::clone(&self.has_begun),
        })
    }
}

/// Ignores the durations that Hyper passes in favour of the timeouts.
impl Timer for HeaderTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.deadline()
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.deadline()
    }
}

struct HeaderDeadline {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// The time for the head once it has begun; `None` once it is applied.
    head: Option<Duration>,
    has_begun: Arc<AtomicBool>,
}

impl Future for HeaderDeadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Hyper polls this whenever it has read bytes that do not complete the head.
        if self.has_begun.load(Ordering::Relaxed)
            && let Some(head) = self.head.take()
        {
            self.sleep.as_mut().reset(tokio::time::Instant::now() + head);
        }
        self.sleep.as_mut().poll(cx)
    }
}

impl Sleep for HeaderDeadline {}
