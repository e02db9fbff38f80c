//! A Unix socket in the data directory, through which commands reach the server that holds the directory.
//!
//! Commands send API keys. The recorded address of a server that was killed may belong to any program by now, whereas
//! only who may write to the data directory can listen here.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::{
    connections::{ACCEPT_PAUSE, Connection, ConnectionGauge, ConnectionSettings},
    supervisor::Supervisor,
};
use crate::http::RequestHandler;

const FILE_NAME: &str = "server.sock";

/// Concurrent connections of commands.
const CONNECTIONS_MAX: u32 = 64;

/// The listening socket. Its file is removed on drop.
#[derive(Debug)]
pub(super) struct LocalSocket {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Listens in a data directory that this process has locked. Call it within a runtime.
    pub(super) fn bind(data_dir: &Path) -> io::Result<LocalSocket> {
        let path = data_dir.join(FILE_NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // Left over from a killed server, or none.
            _ => {}
        }
        let listener = with_short_path(data_dir, |path| UnixListener::bind(path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(LocalSocket { listener: tokio::net::UnixListener::from_std(listener)?, path })
    }

    /// Serves connections until the server stops. Requests in flight may finish within the grace period.
    pub(super) async fn serve(
        self,
        handler: Arc<ArcSwap<RequestHandler>>,
        settings: ConnectionSettings,
        supervisor: Supervisor,
    ) {
        let (grace, stopping) = (settings.grace, settings.http.stopping.clone());
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
        let shared = Arc::new((self, handler, settings, slots.clone()));
        let accepting = supervisor.run("local connections", move || {
            let shared = shared.clone();
            async move {
                let (socket, handler, settings, slots) = &*shared;
                while let Ok(slot) = slots.clone().acquire_owned().await {
                    socket.accept(Connection::local(handler.clone(), settings, slot)).await;
                }
            }
        });
        tokio::select! {
            () = stopping.cancelled() => (),
            () = accepting => (),
        }
        // What takes longer is cut off, as connections on the network are.
        let _ = tokio::time::timeout(grace, slots.acquire_many(CONNECTIONS_MAX)).await;
    }

    /// Serves the next connection in its own task.
    async fn accept(&self, connection: Connection) {
        match self.listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    let _counted = ConnectionGauge::new();
                    connection.serve(stream).await;
                });
            }
            Err(error) => {
                tracing::error!("cannot accept connections to {}: {error}", self.path.display());
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // A file that stays is replaced by the next server.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the server that holds a data directory, and to no other program.
pub fn connect_local(data_dir: &Path) -> io::Result<UnixStream> {
    with_short_path(data_dir, |path| UnixStream::connect(path))
}

/// Calls `call` with a path of the socket. The address of a Unix socket has about a hundred bytes; on Linux a longer
/// path is shortened by way of an open directory.
fn with_short_path<T>(data_dir: &Path, call: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = data_dir.join(FILE_NAME);
    match call(&path) {
        // The standard library rejects an address that is too long.
        Err(error) if cfg!(target_os = "linux") && error.kind() == io::ErrorKind::InvalidInput => {
            use std::os::fd::AsRawFd as _;
            let directory = File::open(data_dir)?;
            call(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(FILE_NAME))
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listens_in_a_directory_with_a_long_path_and_replaces_the_socket_of_a_killed_server() {
        let home = tempfile::tempdir().unwrap();
        for name in ["short", &"long".repeat(50)] {
            let data_dir = home.path().join(name);
            fs::create_dir(&data_dir).unwrap();
            assert_eq!(connect_local(&data_dir).unwrap_err().kind(), io::ErrorKind::NotFound);
            let first = LocalSocket::bind(&data_dir).unwrap();
            connect_local(&data_dir).unwrap();
            // The file of a killed server stays.
            let killed = first.path.clone();
            drop(first);
            with_short_path(&data_dir, |path| UnixListener::bind(path)).map(drop).unwrap();
            assert!(fs::exists(&killed).unwrap());
            assert_eq!(connect_local(&data_dir).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let second = LocalSocket::bind(&data_dir).unwrap();
            connect_local(&data_dir).unwrap();
            assert_eq!(fs::metadata(&second.path).unwrap().permissions().mode() & 0o777, 0o600);
            drop(second);
            assert!(!fs::exists(&killed).unwrap());
        }
    }
}
