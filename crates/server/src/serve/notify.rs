//! Notifications to a service manager (systemd's `sd_notify` protocol).

use std::{ffi::OsStr, io};

/// How long a service manager may leave its notifications unread.
#[cfg(target_os = "linux")]
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// Sends `state` to the service manager's socket, if there is one.
pub(super) fn notify(socket: Option<&OsStr>, state: &str) {
    if let Some(socket) = socket
        && let Err(error) = send(socket, state)
    {
        tracing::warn!("cannot notify the service manager of {state:?}: {error}");
    }
}

#[cfg(target_os = "linux")]
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    };
    // An @ denotes an abstract socket, which has no path.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let manager = UnixDatagram::unbound()?;
    manager.set_write_timeout(Some(TIMEOUT))?;
    manager.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send(_socket: &OsStr, _state: &str) -> io::Result<()> {
    Ok(())
}
