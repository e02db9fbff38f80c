//! Lines of JSON: split from a request body, and streamed as a response.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::{
    Problem,
    body::{BodyReader, JSON_BYTES_MAX},
    error_code::ErrorCode,
};

/// Bytes of a line.
const LINE_BYTES_MAX: usize = JSON_BYTES_MAX;

/// The lines of a body, numbered from 1. Empty lines are skipped.
pub(super) struct Lines {
    body: BodyReader,
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer, and up to where the buffer has no further end of a line.
    start: usize,
    scanned: usize,
    number: u64,
    /// Within a line that is too long, whose rest is skipped.
    skipping: bool,
    ended: bool,
}

/// A line, or the problem with this line alone.
pub(super) struct Line {
    /// Its number.
    pub(super) number: u64,
    /// Its bytes.
    pub(super) text: Result<Vec<u8>, Problem>,
}

impl Lines {
    /// The lines of `body`.
    pub(super) fn new(body: BodyReader) -> Lines {
        Lines { body, buffer: Vec::new(), start: 0, scanned: 0, number: 0, skipping: false, ended: false }
    }

    /// The next line; `None` at the end; an error if the body cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, Problem> {
        loop {
            if let Some(line) = self.take_line() {
                // A client may produce lines slowly.
                self.body.reset_timeout();
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
            match self.body.next().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => {
                    self.ended = true;
                    self.buffer.push(b'\n');
                }
            }
        }
    }

    /// Takes the next complete line from the buffer.
    fn take_line(&mut self) -> Option<Line> {
        loop {
            let end = self.buffer[self.scanned..]
                .iter()
                .position(|&byte| byte == b'\n')
                .map(|at| self.scanned + at);
            let length = end.unwrap_or(self.buffer.len()) - self.start;
            let too_long = !self.skipping && length > LINE_BYTES_MAX;
            let Some(end) = end else {
                self.scanned = self.buffer.len();
                if self.skipping || too_long {
                    self.start = self.scanned;
                }
                if too_long {
                    self.skipping = true;
                    return Some(Line { number: self.number + 1, text: Err(line_too_long()) });
                }
                return None;
            };
            let text = self.buffer[self.start..end].trim_ascii();
            let line = match (std::mem::take(&mut self.skipping), too_long, text.is_empty()) {
                (true, _, _) | (_, false, true) => None,
                (_, true, _) => Some(Err(line_too_long())),
                (_, false, false) => Some(Ok(text.to_vec())),
            };
            self.number += 1;
            self.start = end + 1;
            self.scanned = self.start;
            if let Some(text) = line {
                return Some(Line { number: self.number, text });
            }
        }
    }
}

fn line_too_long() -> Problem {
    Problem::new(ErrorCode::LineSize, format!("the line is longer than {LINE_BYTES_MAX} bytes"))
}

/// A body of the chunks that a task sends. Dropping the body drops `cancel_guard`, which cancels the task when the
/// client hangs up.
pub(super) fn channel_body(chunks: mpsc::Receiver<Bytes>, cancel_guard: DropGuard) -> Body {
    Body::from_stream(stream::unfold((chunks, cancel_guard), |(mut chunks, cancel_guard)| async {
        let chunk = chunks.recv().await?;
        Some((Ok::<_, Infallible>(chunk), (chunks, cancel_guard)))
    }))
}

/// Appends `value` as a line.
pub(super) fn write_line(to: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *to, value)
        .expect("responses have string keys, and writing to a Vec cannot fail");
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    /// Lines of a body that arrives in chunks of `size` bytes.
    async fn lines(text: &[u8], size: usize) -> Vec<(u64, Result<Vec<u8>, u16>)> {
        let (sender, receiver) = mpsc::channel(1);
        let chunks: Vec<Bytes> = text.chunks(size).map(Bytes::copy_from_slice).collect();
        let feeder = tokio::spawn(async move {
            for chunk in chunks {
                sender.send(chunk).await.unwrap();
            }
        });
        let body = channel_body(receiver, CancellationToken::new().drop_guard());
        let reader =
            BodyReader::new(&HeaderMap::new(), body, 64 << 20, Duration::from_secs(60)).ok().unwrap();
        let mut lines = Lines::new(reader);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.ok().unwrap() {
            found.push((line.number, line.text.map_err(|problem| problem.status().as_u16())));
        }
        feeder.await.unwrap();
        found
    }

    #[tokio::test]
    async fn lines_do_not_depend_on_how_the_body_is_chunked() {
        let text = b"{\"id\":1}\n\n  {\"id\":2}\r\n\t\nlast";
        let expected =
            vec![(1, Ok(b"{\"id\":1}".to_vec())), (3, Ok(b"{\"id\":2}".to_vec())), (5, Ok(b"last".to_vec()))];
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(lines(text, size).await, expected, "chunks of {size}");
        }
        assert_eq!(lines(b"", 1).await, vec![]);
        assert_eq!(lines(b"\n\n\n", 1).await, vec![]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_does_not_affect_others() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        let text = [b"a\n", &long[..], &long[..], b"\nb\n", &long[..], b"\nc"].concat();
        let expected = vec![
            (1, Ok(b"a".to_vec())),
            (2, Err(413)),
            (3, Ok(b"b".to_vec())),
            (4, Err(413)),
            (5, Ok(b"c".to_vec())),
        ];
        for size in [10_000, 3 << 20, text.len()] {
            assert_eq!(lines(&text, size).await, expected, "chunks of {size}");
        }
        let fits = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(lines(&fits, 4096).await, vec![(1, Ok(fits.clone()))]);
    }
}
