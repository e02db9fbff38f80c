//! Where the server of a data directory is: a file beside the store, for the command line to find.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::ServeError;

const FILE_NAME: &str = "server.json";

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAddress {
    /// Its URL, without a path.
    pub url: String,
    /// Its process.
    pub pid: u32,
    /// The file of the certificate it shows, if it speaks HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
}

impl ServerAddress {
    /// The server that has `data_dir`, by its own word: it may have been killed since.
    pub fn read(data_dir: &Path) -> io::Result<Option<ServerAddress>> {
        match fs::read(data_dir.join(FILE_NAME)) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells that this process serves `data_dir` at `url`, until the answer is dropped.
    pub(super) fn write(
        data_dir: &Path,
        url: String,
        certificate: Option<&Path>,
    ) -> Result<AddressFile, ServeError> {
        let path = data_dir.join(FILE_NAME);
        // Who reads this may stand elsewhere; a path that cannot be made absolute is one that cannot be read.
        let certificate = certificate.and_then(|path| std::path::absolute(path).ok());
        let address = ServerAddress { url, pid: std::process::id(), certificate };
        let json = serde_json::to_vec(&address)
            .map_err(|source| ServeError::AddressFile { path: path.clone(), source: source.into() })?;
        let beside = data_dir.join(format!("{FILE_NAME}.new"));
        fs::create_dir_all(data_dir)
            .and_then(|()| fs::write(&beside, json))
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|source| ServeError::AddressFile { path: path.clone(), source })?;
        Ok(AddressFile { data_dir: data_dir.to_owned(), address })
    }
}

/// The file, which goes when this does.
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

/// Where a client of this machine finds a server that listens on `address`.
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
    fn the_file_stands_as_long_as_the_server() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ServerAddress::read(dir.path()).unwrap(), None);
        let written =
            ServerAddress::write(dir.path(), url("0.0.0.0:8000".parse().unwrap(), false), None).unwrap();
        let found = ServerAddress::read(dir.path()).unwrap().unwrap();
        assert_eq!(
            found,
            ServerAddress {
                url: "http://127.0.0.1:8000".to_owned(),
                pid: std::process::id(),
                certificate: None
            }
        );
        drop(written);
        assert_eq!(ServerAddress::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn the_file_of_another_server_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first =
            ServerAddress::write(dir.path(), url("127.0.0.1:8000".parse().unwrap(), true), None).unwrap();
        let _second =
            ServerAddress::write(dir.path(), url("[::]:8001".parse().unwrap(), true), None).unwrap();
        drop(first);
        assert_eq!(ServerAddress::read(dir.path()).unwrap().unwrap().url, "https://[::1]:8001");
    }
}
