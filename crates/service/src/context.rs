//! Who calls, and how long they will wait.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// Who a call is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The process itself: the command line, or a program that embeds the library.
    Local,
    /// A client with this address, with or without a key.
    Remote {
        /// Peer address.
        peer: std::net::SocketAddr,
    },
}

/// What every verb is called with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who calls.
    pub caller: Caller,
    /// When the answer is worth nothing any more; the configured timeout from now, if `None`.
    pub deadline: Option<Instant>,
    /// Fires when the caller has gone.
    pub cancel: CancellationToken,
}

impl Context {
    /// A call of the process itself, without a deadline of its own.
    pub fn local() -> Context {
        Context { caller: Caller::Local, deadline: None, cancel: CancellationToken::new() }
    }
}
