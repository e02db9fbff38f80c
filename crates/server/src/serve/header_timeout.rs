//! How long a connection may take for the head of a request, and how long it may wait for the next to begin.
//!
//! Hyper has one limit for both, which it counts from the end of an answer by the clock it is given: so it is given one
//! that knows whether a head has begun. Connections in a client's pool, or a proxy's, may then stand idle for much longer than
//! one that sends a head byte by byte is put up with.

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

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderTimeouts {
    /// From a head's first byte to its last; for the first head, from the beginning of the connection.
    pub(super) head: Duration,
    /// From the end of an answer to the first byte of the next head, if that is more.
    pub(super) idle: Duration,
}

/// The clock by which Hyper waits for heads.
#[derive(Debug)]
pub(super) struct HeaderTimer {
    timeouts: HeaderTimeouts,
    is_first: AtomicBool,
    /// Something came since the last wait began.
    has_begun: Arc<AtomicBool>,
}

impl HeaderTimer {
    pub(super) fn new(timeouts: HeaderTimeouts) -> HeaderTimer {
        HeaderTimer { timeouts, is_first: AtomicBool::new(true), has_begun: Arc::default() }
    }

    /// What to call with what is read from the connection.
    pub(super) fn read_observer(&self) -> impl FnMut(&[u8]) + Send + use<> {
        let has_begun = Arc::clone(&self.has_begun);
        move |bytes| {
            if !bytes.is_empty() {
                has_begun.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Until the head's time is up.
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

/// How long is asked for is left out of account: it is the limits that count.
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
    /// What the head is given once it begins; none when that has been taken into account.
    head: Option<Duration>,
    has_begun: Arc<AtomicBool>,
}

impl Future for HeaderDeadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Whenever something is read, and the head is not whole by it, this is polled.
        if self.has_begun.load(Ordering::Relaxed)
            && let Some(head) = self.head.take()
        {
            self.sleep.as_mut().reset(tokio::time::Instant::now() + head);
        }
        self.sleep.as_mut().poll(cx)
    }
}

impl Sleep for HeaderDeadline {}
