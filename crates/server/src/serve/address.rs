//! The address of the server of a data directory: a file next to the store, which commands read.

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::{
    fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::ServeError;

const FILE_NAME: &str = "server.json";

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAddress {
    /// Its URL, without a path.
    pub url: String,
    /// Its process id.
    pub pid: u32,
}

impl ServerAddress {
    /// The address in `data_dir`. The server that wrote it may have been killed since.
    pub fn read(data_dir: &Path) -> io::Result<Option<ServerAddress>> {
        match fs::read(data_dir.join(FILE_NAME)) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the address of this process into `data_dir`. The file is removed when the result is dropped.
    pub(super) fn write(data_dir: &Path, url: String) -> Result<AddressFile, ServeError> {
        let path = data_dir.join(FILE_NAME);
        let address = ServerAddress { url, pid: std::process::id() };
        let temporary = data_dir.join(format!("{FILE_NAME}.new"));
        let written = serde_json::to_vec(&address).map_err(Into::into).and_then(|json| {
            create_directory(data_dir)?;
            write_file(&temporary, &json)?;
            fs::rename(&temporary, &path)
        });
        match written {
            Ok(()) => Ok(AddressFile { data_dir: data_dir.to_owned(), address }),
            Err(source) => Err(ServeError::AddressFile { path, source }),
        }
    }
}

/// Creates a directory and its missing parents, for the owner only.
fn create_directory(path: &Path) -> io::Result<()> {
    let mut create = fs::DirBuilder::new();
    create.recursive(true);
    #[cfg(unix)]
    create.mode(0o700);
    create.create(path)
}

/// Writes a file for the owner only.
fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut create = fs::OpenOptions::new();
    create.write(true).create(true).truncate(true);
    #[cfg(unix)]
    create.mode(0o600);
    create.open(path)?.write_all(content)
}

/// The file, which is removed on drop.
#[derive(Debug)]
pub(super) struct AddressFile {
    data_dir: PathBuf,
    address: ServerAddress,
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        let is_ours =
            ServerAddress::read(&self.data_dir).is_ok_and(|found| found.as_ref() == Some(&self.address));
        let path = self.data_dir.join(FILE_NAME);
        if is_ours && let Err(error) = fs::remove_file(&path) {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The URL at which clients on this machine reach a server that listens on `address`.
pub(super) fn url(address: SocketAddr, tls: bool) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_removed_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ServerAddress::read(dir.path()).unwrap(), None);
        let written = ServerAddress::write(dir.path(), url("0.0.0.0:8000".parse().unwrap(), false)).unwrap();
        let found = ServerAddress::read(dir.path()).unwrap().unwrap();
        assert_eq!(found, ServerAddress { url: "http://127.0.0.1:8000".to_owned(), pid: std::process::id() });
        drop(written);
        assert_eq!(ServerAddress::read(dir.path()).unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_directory_and_the_file_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("data");
        let _written = ServerAddress::write(&dir, url("127.0.0.1:8000".parse().unwrap(), false)).unwrap();
        for path in [dir.clone(), dir.join(FILE_NAME)] {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        }
    }

    #[test]
    fn the_file_of_another_server_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = ServerAddress::write(dir.path(), url("127.0.0.1:8000".parse().unwrap(), true)).unwrap();
        let _second = ServerAddress::write(dir.path(), url("[::]:8001".parse().unwrap(), true)).unwrap();
        drop(first);
        assert_eq!(ServerAddress::read(dir.path()).unwrap().unwrap().url, "https://[::1]:8001");
    }
}
