//! What a service manager is told (systemd's `sd_notify` protocol): a datagram of words.

use std::{ffi::OsStr, io};

/// Tells the manager that listens on `socket`, if one does.
pub(super) fn notify(socket: Option<&OsStr>, words: &str) {
    if let Some(socket) = socket
        && let Err(error) = send(socket, words)
    {
        tracing::warn!("the service manager cannot be told {words:?}: {error}");
    }
}

#[cfg(target_os = "linux")]
fn send(socket: &OsStr, words: &str) -> io::Result<()> {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    };
    // An @ stands for a name that is in no directory.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send(_socket: &OsStr, _words: &str) -> io::Result<()> {
    Ok(())
}
