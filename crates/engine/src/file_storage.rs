//! Storage for derived files.

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Storage for derived files: a directory, or in tests a simulation of a failing disk.
pub trait FileStorage: Debug + Send + Sync {
    /// Names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading from its beginning.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read>>;
    /// Creates an empty file, replacing an existing one.
    fn create(&self, name: &str) -> io::Result<Box<dyn WritableFile>>;
    /// Atomically renames a file, replacing an existing one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the current file names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is being written.
pub trait WritableFile: Write {
    /// Makes the written bytes durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub(crate) struct DirectoryStorage(PathBuf);

impl DirectoryStorage {
    /// Opens the directory `path`, creating it if necessary.
    pub(crate) fn open(path: PathBuf) -> io::Result<DirectoryStorage> {
        create_directory(&path)?;
        Ok(DirectoryStorage(path))
    }

    /// The directory `path`, which may be missing and is then empty.
    pub(crate) fn existing(path: PathBuf) -> DirectoryStorage {
        DirectoryStorage(path)
    }
}

impl FileStorage for DirectoryStorage {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        for entry in entries {
            // Files whose names are not UTF-8 are not from this program.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(self.0.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn WritableFile>> {
        Ok(Box::new(create_file(&self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.0)
    }
}

/// Creates a directory and its missing parents, for the owner only.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let mut create = fs::DirBuilder::new();
    create.recursive(true);
    #[cfg(unix)]
    create.mode(0o700);
    create.create(path)
}

/// Creates an empty file for the owner only, or truncates an existing one.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    let mut create = OpenOptions::new();
    create.write(true).create(true).truncate(true);
    #[cfg(unix)]
    create.mode(0o600);
    create.open(path)
}

/// Makes the file names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    // Outside Unix, a directory cannot be opened as a file, and need not be synced.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

impl WritableFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
