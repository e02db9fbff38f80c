//! A model directory under construction: filled next to its destination, checked, synced, renamed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    error::FetchError,
    files::{ModelFile, Pin},
    progress::PullProgress,
};

/// A temporary directory next to the destination, locked against concurrent pulls of the same model.
#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    directory: PathBuf,
    /// Partial downloads, which a failed or killed pull leaves to the next one.
    downloads: PathBuf,
    /// Holds the lock while it is open.
    _lock: File,
}

impl Staging {
    /// Waits for another pull of the same model to end and takes the lock.
    pub(super) fn lock(models_dir: &Path, name: &str) -> Result<Staging, FetchError> {
        create_private_directory(models_dir).map_err(FetchError::io(models_dir))?;
        let lock_path = models_dir.join(format!(".{name}.lock"));
        let lock = File::create(&lock_path).map_err(FetchError::io(&lock_path))?;
        lock.lock().map_err(FetchError::io(&lock_path))?;
        let staging = Staging {
            target: models_dir.join(name),
            directory: models_dir.join(format!(".{name}.partial")),
            downloads: models_dir.join(format!(".{name}.downloads")),
            _lock: lock,
        };
        staging.clear()?;
        Ok(staging)
    }

    /// Empties the directory, which a killed pull or a failed source may have left files in.
    pub(super) fn clear(&self) -> Result<(), FetchError> {
        remove_tree(&self.directory)?;
        fs::create_dir_all(&self.directory).map_err(FetchError::io(&self.directory))
    }

    /// Writes one file and syncs it. Rejects it if it is too long or does not match its pinned content.
    pub(super) fn write_file(
        &self,
        file: &ModelFile,
        location: &str,
        from: &mut dyn Read,
        progress: &dyn PullProgress,
    ) -> Result<(), FetchError> {
        let path = self.directory.join(file.path);
        create_parent(&path)?;
        let mut to = File::create(&path).map_err(FetchError::io(&path))?;
        let max = file.bytes_max();
        let mut hasher = Sha256::new();
        let mut bytes = 0_u64;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(FetchError::Read { file: file.path, location: location.to_owned(), source });
                }
            };
            bytes += read as u64;
            if bytes > max && file.pin.is_none() {
                return Err(FetchError::TooLarge { file: file.path, location: location.to_owned(), max });
            }
            hasher.update(&buffer[..read]);
            to.write_all(&buffer[..read]).map_err(FetchError::io(&path))?;
            progress.bytes_received(bytes);
            if bytes > max {
                break;
            }
        }
        if let Some(pin) = file.pin {
            let found = hexadecimal(&hasher.finalize());
            if bytes != pin.bytes || found != pin.sha256 {
                let location = location.to_owned();
                return Err(FetchError::Hash {
                    file: file.path,
                    location,
                    expected: pin.sha256,
                    found,
                    found_bytes: bytes,
                });
            }
        }
        to.sync_all().map_err(FetchError::io(&path))
    }

    /// Where a file is downloaded to before it is complete.
    pub(super) fn download_path(&self, file: &ModelFile) -> PathBuf {
        self.downloads.join(file.path)
    }

    /// Moves a complete download into the directory.
    pub(super) fn adopt(&self, file: &ModelFile, download: &Path) -> Result<(), FetchError> {
        let path = self.directory.join(file.path);
        create_parent(&path)?;
        fs::rename(download, &path).map_err(FetchError::io(&path))
    }

    /// Renames the directory to its destination, replacing a damaged model.
    pub(super) fn install(self) -> Result<(), FetchError> {
        sync_directories(&self.directory)?;
        let old = self.target.with_file_name(format!(
            ".{}.old",
            self.target.file_name().map(|name| name.to_string_lossy()).unwrap_or_default()
        ));
        remove_tree(&old)?;
        match fs::rename(&self.target, &old) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(FetchError::Io { path: self.target.clone(), source });
            }
        }
        fs::rename(&self.directory, &self.target).map_err(FetchError::io(&self.target))?;
        if let Some(parent) = self.target.parent() {
            sync_directory(parent)?;
        }
        remove_tree(&self.downloads)?;
        remove_tree(&old)
    }

    /// Removes the directory. Partial downloads are kept.
    pub(super) fn discard(self) -> Result<(), FetchError> {
        remove_tree(&self.directory)
    }
}

/// Creates a directory and its missing parents for the owner only: the home directory, which also holds keys and
/// documents, is often among them.
fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates the missing directories above the path of a file.
pub(super) fn create_parent(path: &Path) -> Result<(), FetchError> {
    let parent = path.parent().expect("the path of a file has a parent");
    fs::create_dir_all(parent).map_err(FetchError::io(parent))
}

/// Whether the file at `path` has the pinned content.
pub(super) fn is_intact(path: &Path, pin: &Pin) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != pin.bytes {
        return Ok(false);
    }
    let (hasher, _) = hash(&mut file)?;
    Ok(hexadecimal(&hasher.finalize()) == pin.sha256)
}

/// Reads a file to its end. Returns the digest of what was read, and its length in bytes.
pub(super) fn hash(file: &mut File) -> io::Result<(Sha256, u64)> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hasher, bytes));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn remove_tree(path: &Path) -> Result<(), FetchError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FetchError::Io { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn sync_directories(path: &Path) -> Result<(), FetchError> {
    for entry in fs::read_dir(path).map_err(FetchError::io(path))? {
        let entry = entry.map_err(FetchError::io(path))?;
        if entry.file_type().map_err(FetchError::io(entry.path()))?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    sync_directory(path)
}

fn sync_directory(path: &Path) -> Result<(), FetchError> {
    // Only Unix can sync directories; other systems journal renames.
    if cfg!(unix) {
        File::open(path).and_then(|directory| directory.sync_all()).map_err(FetchError::io(path))?;
    }
    Ok(())
}
