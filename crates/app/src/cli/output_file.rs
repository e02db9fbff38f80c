//! Files that commands write. They never take the place of something else.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, BufWriter, Read, Write},
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use anyhow::Context as _;
use tempfile::NamedTempFile;

use super::error::UsageError;

/// Names of files that get their final name when they are complete.
const UNFINISHED_PREFIX: &str = ".nearfield-unfinished-";

/// Symbolic links that are followed to a file that does not exist yet.
const LINKS_MAX: usize = 40;

/// The name by which a data directory is recognised.
const STORE_FILE: &str = "nearfield.redb";

/// Output may be data or secrets: only its owner may read it.
#[cfg(unix)]
const MODE: u32 = 0o600;

/// Where a command writes to.
#[derive(Debug)]
pub(crate) struct OutputFile {
    /// The path as given.
    name: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// A regular file, after following links.
    File { path: PathBuf, exists: bool },
    /// A pipe, device or socket, which is written to as it is.
    Stream { path: PathBuf },
}

/// What an output file must not be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputRules<'a> {
    /// The data directories in use, which may be empty. Others are recognised by their store.
    pub(crate) data_dirs: &'a [&'a Path],
    /// Files that the command reads.
    pub(crate) inputs: &'a [FileIdentity],
    pub(crate) existing: Existing,
}

/// What to do with a regular file that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Keep it and fail.
    Keep,
    /// Replace it or append to it.
    Change,
}

impl Existing {
    /// Replaces files if `--force` is given.
    pub(crate) fn replace_if(force: bool) -> Existing {
        if force { Existing::Change } else { Existing::Keep }
    }
}

/// Tells regular files apart, whatever their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl FileIdentity {
    /// The identity of an input, where `-` is standard input; `None` if it is not a regular file.
    pub(crate) fn of_input(path: &str) -> Option<FileIdentity> {
        #[cfg(unix)]
        if path == "-" {
            use std::os::fd::AsFd as _;
            let input = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
            return FileIdentity::of(&input.metadata().ok()?);
        }
        FileIdentity::at(Path::new(path))
    }

    fn at(path: &Path) -> Option<FileIdentity> {
        #[cfg(unix)]
        return FileIdentity::of(&fs::metadata(path).ok()?);
        #[cfg(not(unix))]
        fs::metadata(path).ok()?.is_file().then_some(FileIdentity(path.canonicalize().ok()?))
    }

    #[cfg(unix)]
    fn of(metadata: &fs::Metadata) -> Option<FileIdentity> {
        use std::os::unix::fs::MetadataExt as _;
        metadata.is_file().then(|| FileIdentity((metadata.dev(), metadata.ino())))
    }
}

impl OutputFile {
    /// Checks where `path` leads. Nothing is written yet.
    pub(crate) fn new(path: &Path, rules: OutputRules<'_>) -> anyhow::Result<OutputFile> {
        let name = path.display().to_string();
        let invalid = |why: String| Err(UsageError(format!("{name} {why}")).into());
        if name == "-" {
            // The command's own messages go there.
            return invalid(
                "is not standard output here: name a file or a named pipe (./- is a file)".to_owned(),
            );
        }
        let place = match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return invalid("is a directory: give the name of a file in it".to_owned());
            }
            Ok(found) if !found.is_file() => Place::Stream { path: path.to_owned() },
            Ok(_) => Place::File { path: path.canonicalize().with_context(|| name.clone())?, exists: true },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Place::File { path: resolve_missing(path).with_context(|| name.clone())?, exists: false }
            }
            Err(error) => return Err(error).with_context(|| name.clone()),
        };
        if let Place::File { path, exists } = &place {
            if let Some(data_dir) = data_dir_of(path, rules.data_dirs) {
                let data_dir = data_dir.display();
                return invalid(format!("is in the data directory {data_dir}: write it somewhere else"));
            }
            if FileIdentity::at(path).is_some_and(|identity| rules.inputs.contains(&identity)) {
                return invalid("is read by the same command: write to another file".to_owned());
            }
            if *exists && rules.existing == Existing::Keep {
                return invalid("exists: choose another name, or replace it with --force".to_owned());
            }
        }
        Ok(OutputFile { name, place })
    }

    /// The path as given.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether both are the same regular file.
    pub(crate) fn is_same_file(&self, other: &OutputFile) -> bool {
        match (&self.place, &other.place) {
            (Place::File { path, .. }, Place::File { path: other, .. }) => path == other,
            _ => false,
        }
    }

    /// Writes everything: a file appears, or replaces the old one, when it is complete and synced.
    pub(crate) fn write<T>(
        self,
        write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let name = self.name;
        match self.place {
            Place::File { path, exists } => {
                write_atomically(&path, exists, &name, write, |_| Ok(())).map(|(value, ())| value)
            }
            Place::Stream { path } => {
                let stream = open_stream(&path).with_context(|| name.clone())?;
                let mut out = BufWriter::new(NamedWriter { out: stream, name: &name });
                let value = write(&mut out)?;
                out.flush()?;
                Ok(value)
            }
        }
    }

    /// As [`OutputFile::write`], where `verify` reads everything back before a file gets its name, or while it is
    /// written to a stream.
    pub(crate) fn write_verified<T, V: Send>(
        self,
        write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
        verify: impl FnOnce(&mut dyn Read) -> anyhow::Result<V> + Send,
    ) -> anyhow::Result<(T, V)> {
        let name = self.name;
        match self.place {
            Place::File { path, exists } => write_atomically(&path, exists, &name, write, |written| {
                verify(&mut BufReader::new(File::open(written).with_context(|| name.clone())?))
            }),
            Place::Stream { path } => {
                let file = open_stream(&path).with_context(|| name.clone())?;
                let (copy, copied) = io::pipe().context("creating a pipe")?;
                thread::scope(|scope| {
                    let verifying = scope.spawn(move || verify(&mut BufReader::new(copy)));
                    let mut out =
                        BufWriter::new(NamedWriter { out: Tee { file, copied: Some(copied) }, name: &name });
                    let written = write(&mut out).and_then(|value| {
                        out.flush()?;
                        Ok(value)
                    });
                    // The end of what is verified.
                    drop(out);
                    let verified = verifying.join().unwrap_or_else(|panic| resume_unwind(panic));
                    // What was not written completely does not verify either.
                    Ok((written?, verified?))
                })
            }
        }
    }

    /// Opens the file to be written bit by bit. A regular file that exists is replaced by a new one.
    pub(crate) fn create(&self) -> anyhow::Result<BufWriter<File>> {
        let file = match &self.place {
            Place::File { path, exists } => {
                if *exists {
                    // Not truncated: other names of it keep its content.
                    fs::remove_file(path).with_context(|| self.name.clone())?;
                }
                new_file().write(true).create_new(true).open(path)
            }
            Place::Stream { path } => open_stream(path),
        };
        file.map(BufWriter::new).with_context(|| self.name.clone())
    }

    /// Opens the file to be appended to, creating it if necessary.
    pub(crate) fn append(&self) -> anyhow::Result<File> {
        let file = match &self.place {
            Place::File { path, .. } => new_file().append(true).create(true).open(path),
            Place::Stream { path } => open_stream(path),
        };
        file.with_context(|| self.name.clone())
    }
}

/// Options for files that only the owner may read.
fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, MODE);
    options
}

/// Opens what is not a regular file: neither created nor truncated.
fn open_stream(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// The path of a file that does not exist, after following links; its directory exists.
fn resolve_missing(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let directory = directory_of(&path);
        match fs::read_link(&path) {
            Ok(target) => path = directory.join(target),
            Err(_) => {
                let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidFilename.into()) };
                return Ok(directory.canonicalize()?.join(name));
            }
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The data directory that a resolved path is in.
fn data_dir_of<'a>(path: &'a Path, in_use: &[&Path]) -> Option<&'a Path> {
    let in_use: Vec<PathBuf> = in_use.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let has_store = |path: &Path| fs::symlink_metadata(path.join(STORE_FILE)).is_ok();
    directory_of(path).ancestors().find(|path| has_store(path) || in_use.iter().any(|dir| dir == path))
}

/// Writes a temporary file in the same directory, syncs it, lets `check` read it, and gives it its name. A file that
/// `check` rejects is discarded.
fn write_atomically<T, V>(
    path: &Path,
    replace: bool,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
    check: impl FnOnce(&Path) -> anyhow::Result<V>,
) -> anyhow::Result<(T, V)> {
    let context = || name.to_owned();
    let directory = directory_of(path);
    remove_unfinished(directory);
    let out = unfinished_file(directory).with_context(context)?;
    let mut writer = BufWriter::new(NamedWriter { out, name });
    let value = write(&mut writer)?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?.out;
    file.as_file().sync_all().with_context(context)?;
    let checked = check(file.path())?;
    let persisted = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    persisted.map_err(|error| error.error).with_context(context)?;
    // The new name is durable once its directory is synced. Only Unix can sync directories.
    #[cfg(unix)]
    File::open(directory).and_then(|directory| directory.sync_all()).with_context(context)?;
    Ok((value, checked))
}

/// Creates a temporary file and locks it for as long as it is being written.
fn unfinished_file(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(MODE));
    loop {
        let file = builder.tempfile_in(directory)?;
        match file.as_file().try_lock() {
            // Another command has found it unlocked.
            Err(TryLockError::WouldBlock) => {}
            Ok(()) if !file.path().exists() => {}
            // Without locks, nobody removes it.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Removes what killed commands have left in a directory.
fn remove_unfinished(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX)
            && entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_unfinished && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // Another command may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Adds the name of the file to errors.
struct NamedWriter<'a, W> {
    out: W,
    name: &'a str,
}

impl<W: Write> Write for NamedWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| self.add_name(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| self.add_name(error))
    }
}

impl<W> NamedWriter<'_, W> {
    fn add_name(&self, error: io::Error) -> io::Error {
        match error.kind() {
            // Writers try again.
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, format!("{}: {error}", self.name)),
        }
    }
}

/// Writes to a file, and copies what was written as long as the copy is read.
struct Tee {
    file: File,
    copied: Option<io::PipeWriter>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if self.copied.as_mut().is_some_and(|copied| copied.write_all(&bytes[..written]).is_err()) {
            self.copied = None;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests;
