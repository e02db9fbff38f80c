//! Whether the store's file is still where it was opened.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::StoreError;

/// What distinguishes an open file from any other: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
}

impl FileIdentity {
    /// The identity of an open file.
    pub(crate) fn of(file: &File) -> io::Result<FileIdentity> {
        file.metadata().map(|metadata| FileIdentity::from(&metadata))
    }

    /// Fails if another file or none is at `path`. A path that cannot be examined is not an error: the file may still be
    /// there.
    pub(crate) fn check(self, path: &Path) -> Result<(), StoreError> {
        let what = match fs::metadata(path) {
            Ok(metadata) if FileIdentity::from(&metadata) == self => return Ok(()),
            Ok(_) => "replaced by another file",
            Err(error) if error.kind() == ErrorKind::NotFound => "moved or deleted",
            Err(_) => return Ok(()),
        };
        Err(StoreError::Displaced { path: path.to_owned(), what })
    }
}

#[cfg(unix)]
impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> FileIdentity {
        use std::os::unix::fs::MetadataExt as _;
        FileIdentity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Other platforms do not let an open file be moved.
#[cfg(not(unix))]
impl From<&Metadata> for FileIdentity {
    fn from(_metadata: &Metadata) -> FileIdentity {
        FileIdentity {}
    }
}
