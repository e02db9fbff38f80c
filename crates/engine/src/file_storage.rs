//! The seam to the disk for derived files.

use std::{
    fmt::Debug,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Where derived files lie: a directory, or something that fails as a disk may.
pub trait FileStorage: Debug + Send + Sync {
    /// Names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file to read it from its beginning.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read>>;
    /// Makes an empty file, in place of any of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn WritableFile>>;
    /// Gives a file another name, in place of any of that name; a reader sees the one or the other.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes durable which names there are.
    fn sync(&self) -> io::Result<()>;
}

/// A file being written.
pub trait WritableFile: Write {
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub(crate) struct DirectoryStorage(PathBuf);

impl DirectoryStorage {
    /// The directory `path`, which is made if need be.
    pub(crate) fn open(path: PathBuf) -> io::Result<DirectoryStorage> {
        fs::create_dir_all(&path)?;
        Ok(DirectoryStorage(path))
    }
}

impl FileStorage for DirectoryStorage {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            // Names of ours are UTF-8.
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

/// Makes durable which names there are in a directory.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    // Elsewhere than on Unix a directory cannot be opened as a file, nor need it be.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

impl WritableFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
