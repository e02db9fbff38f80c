//! Closing connections so that the last response arrives.
//!
//! Closing a socket with unread data resets the connection, and the client may lose the response that it has not read
//! yet. So the server first ends its own side, and discards what the client still sends until the client ends its side.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How long the client has to read the response and end the connection.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes that are discarded meanwhile.
const DISCARDED_BYTES_MAX: usize = 4 << 20;

/// Ends `stream`; with `linger`, waits for the client to end it too.
pub(super) async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin, linger: bool) -> io::Result<()> {
    stream.shutdown().await?;
    if linger {
        // The response has been sent: whatever the client does is fine.
        let _ = tokio::time::timeout(LINGER, discard(stream)).await;
    }
    Ok(())
}

async fn discard(mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut left = DISCARDED_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}
