//! Storage for derived files.

use std::{
    fmt::Debug,
    fs::{self, File},
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
        fs::create_dir_all(&path)?;
        Ok(DirectoryStorage(path))
    }
}

impl FileStorage for DirectoryStorage {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            // Files whose names are not UTF-8 are not from this program.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(self.0.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn WritableFile>> {
        Ok(Box::new(File::create(self.0.join(name))?))
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
