//! A file that is downloaded in several attempts. What has arrived is kept, and continued by the next attempt or by
//! another pull.

use std::{
    fs::{self, File},
    io::{self, Read, Seek as _, Write as _},
    path::PathBuf,
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    error::FetchError,
    files::{ModelFile, Pin},
    progress::PullProgress,
    staging::{self, create_parent, hexadecimal},
};

/// Consecutive attempts that bring nothing before a download fails.
const ATTEMPTS_MAX: u32 = 5;
/// Pause before the second such attempt; later ones wait longer by as much each.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });

/// A partial file.
pub(super) struct Download<'a> {
    path: PathBuf,
    to: File,
    file: &'a ModelFile,
    pin: Pin,
    location: &'a str,
    hasher: Sha256,
    /// Bytes that have arrived.
    bytes: u64,
    /// Whether some of them are from an earlier pull, and may be of another file.
    is_continued: bool,
}

impl<'a> Download<'a> {
    /// Continues the partial file at `path`, or begins it.
    pub(super) fn resume(
        path: PathBuf,
        file: &'a ModelFile,
        pin: Pin,
        location: &'a str,
    ) -> Result<Download<'a>, FetchError> {
        create_parent(&path)?;
        let open = || {
            let mut to = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            let (hasher, bytes) = staging::hash(&mut to)?;
            Ok((to, hasher, bytes))
        };
        let (to, hasher, bytes) = open().map_err(FetchError::io(&path))?;
        let is_continued = bytes > 0;
        let mut download = Download { path, to, file, pin, location, hasher, bytes, is_continued };
        if bytes > pin.bytes {
            download.restart()?;
        }
        Ok(download)
    }

    /// Forgets what has arrived.
    fn restart(&mut self) -> Result<(), FetchError> {
        (self.hasher, self.bytes, self.is_continued) = (Sha256::new(), 0, false);
        self.to.set_len(0).and_then(|()| self.to.rewind()).map_err(FetchError::io(&self.path))
    }

    /// Reads the rest of the file from readers that `open` returns for an offset in bytes, and verifies the whole. A
    /// reader that fails is replaced by another, and a wrong file that was continued is fetched again from its beginning.
    /// Returns the path of the complete file; a wrong one is removed.
    pub(super) fn finish(
        mut self,
        mut open: impl FnMut(u64) -> Result<Box<dyn Read>, FetchError>,
        progress: &dyn PullProgress,
    ) -> Result<PathBuf, FetchError> {
        loop {
            self.read_rest(&mut open, progress)?;
            let found = hexadecimal(&self.hasher.clone().finalize());
            if found == self.pin.sha256 {
                self.to.sync_all().map_err(FetchError::io(&self.path))?;
                return Ok(self.path);
            }
            if !self.is_continued {
                fs::remove_file(&self.path).map_err(FetchError::io(&self.path))?;
                return Err(FetchError::Hash {
                    file: self.file.path,
                    location: self.location.to_owned(),
                    expected: self.pin.sha256,
                    found,
                    found_bytes: self.bytes,
                });
            }
            self.restart()?;
        }
    }

    /// Reads until the file has its length.
    fn read_rest(
        &mut self,
        mut open: impl FnMut(u64) -> Result<Box<dyn Read>, FetchError>,
        progress: &dyn PullProgress,
    ) -> Result<(), FetchError> {
        let mut attempts_in_vain = 0;
        progress.bytes_received(self.bytes);
        while self.bytes < self.pin.bytes {
            let before = self.bytes;
            let mut from = open(before)?.take(self.pin.bytes - before);
            match self.append(&mut from, progress) {
                Ok(()) => {}
                Err(FetchError::Read { .. }) if self.bytes > before => attempts_in_vain = 0,
                Err(error @ FetchError::Read { .. }) => {
                    attempts_in_vain += 1;
                    if attempts_in_vain == ATTEMPTS_MAX {
                        return Err(error);
                    }
                    thread::sleep(PAUSE * attempts_in_vain);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends everything that `from` returns. The end of the file before its length is an error.
    fn append(&mut self, from: &mut dyn Read, progress: &dyn PullProgress) -> Result<(), FetchError> {
        let mut buffer = vec![0; 128 << 10];
        while self.bytes < self.pin.bytes {
            let read = match from.read(&mut buffer) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read,
            };
            let read = read.map_err(|source| FetchError::Read {
                file: self.file.path,
                location: self.location.to_owned(),
                source,
            })?;
            self.hasher.update(&buffer[..read]);
            self.to.write_all(&buffer[..read]).map_err(FetchError::io(&self.path))?;
            self.bytes += read as u64;
            progress.bytes_received(self.bytes);
        }
        Ok(())
    }
}
