//! Timeout for clients that read a response too slowly.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use crate::http::MinimumRate;

/// A stream whose writes fail if the peer pauses too long, or reads below the minimum rate for as long.
#[derive(Debug)]
pub(super) struct WriteTimeoutStream<S> {
    stream: S,
    rate: MinimumRate,
    stall: Option<Stall>,
}

#[derive(Debug)]
struct Stall {
    since: Instant,
    expires: Pin<Box<Sleep>>,
}

impl<S> WriteTimeoutStream<S> {
    /// Wraps `stream`, whose peer may pause for `limit`, and must read `bytes_per_second` on average.
    pub(super) fn new(stream: S, limit: Duration, bytes_per_second: u32) -> WriteTimeoutStream<S> {
        WriteTimeoutStream { stream, rate: MinimumRate::new(limit, bytes_per_second), stall: None }
    }

    /// Returns `progress`, or an error if the peer has been too slow.
    fn enforce_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let remaining = self.rate.remaining();
        if let Poll::Ready(written) = &progress {
            if let (Some(stall), Ok(written)) = (self.stall.take(), written) {
                self.rate.record(stall.since.elapsed(), bytes(written));
            }
            return progress;
        }
        let stall = self.stall.get_or_insert_with(|| Stall {
            since: Instant::now(),
            expires: Box::pin(tokio::time::sleep(remaining)),
        });
        ready!(stall.expires.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read the response")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeoutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.enforce_timeout(cx, progress, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.enforce_timeout(cx, progress, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(cx);
        self.enforce_timeout(cx, progress, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.enforce_timeout(cx, progress, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn writes_fail_if_the_reader_pauses_but_not_if_it_is_slow() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = WriteTimeoutStream::new(near, Duration::from_millis(20), 4096);
        let reader = tokio::spawn(async move {
            let mut read = [0; 32];
            far.read_exact(&mut read).await.unwrap();
            far
        });
        near.write_all(&[7; 32]).await.unwrap();
        let _far = reader.await.unwrap();
        near.write_all(&[7; 8]).await.unwrap();
        assert_eq!(near.write_all(&[7]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn writes_fail_if_the_reader_stays_below_the_minimum_rate() {
        let (near, mut far) = tokio::io::duplex(1);
        let limit = Duration::from_millis(50);
        let mut near = WriteTimeoutStream::new(near, limit, 4096);
        // Each byte arrives within the limit, but far too few per second.
        let reader = tokio::spawn(async move {
            while far.read_u8().await.is_ok() {
                tokio::time::sleep(limit / 5).await;
            }
        });
        assert_eq!(near.write_all(&[7; 1000]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(near);
        reader.await.unwrap();
    }
}
