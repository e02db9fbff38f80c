//! The caller of a service method, its deadline and its cancellation.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// The origin of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The process itself: the command line, or a program that embeds the library.
    Local,
    /// A remote client, with or without an API key.
    Remote {
        /// The peer's address.
        peer: std::net::SocketAddr,
    },
}

/// The context of a call, passed to every method of the service.
#[derive(Clone, Debug)]
pub struct Context {
    /// The caller.
    pub caller: Caller,
    /// The deadline of the call; if `None`, the configured timeout applies.
    pub deadline: Option<Instant>,
    /// Cancelled when the caller no longer needs the response.
    pub cancel: CancellationToken,
}

impl Context {
    /// The context of a call by the process itself, with the default deadline.
    pub fn local() -> Context {
        Context { caller: Caller::Local, deadline: None, cancel: CancellationToken::new() }
    }
}
