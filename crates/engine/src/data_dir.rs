//! Maintenance of a data directory that no engine has open: check, restore, repair.

#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt as _;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use index::Cpu;
use store::{Backup, BackupError, CollectionVersion, IntegrityReport, Options, Reader, Store, StoreError};

use crate::{
    OpenError, comparison,
    file_storage::{DirectoryStorage, FileStorage as _, create_directory, create_file, sync_directory},
    load::{self, SnapshotSource},
    progress::Progress,
    schema::Schema,
    snapshot::Snapshots,
};

pub(crate) const STORE_FILE: &str = "nearfield.redb";
pub(crate) const SNAPSHOT_DIRECTORY: &str = "snapshots";
const LOCK_FILE: &str = "lock";
/// A store under construction.
const UNFINISHED_FILE: &str = "nearfield.redb.unfinished";
/// Options for stores that are read once and may be damaged.
const OPTIONS: Options = Options { cache_bytes: 64 << 20, verify_bytes_max: 0 };

/// A data directory and the lock on it. Dropping it releases the lock.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// `None` if the directory is not writable and has no lock file.
    _lock: Option<File>,
}

/// The result of [`DataDir::check`].
#[derive(Debug)]
pub struct CheckReport {
    /// What the store holds, and its damage.
    pub store: IntegrityReport,
    /// Name of each snapshot file, and what is wrong with it, if anything. Snapshots can be rebuilt from the store.
    pub snapshots: Vec<(String, Option<String>)>,
}

impl CheckReport {
    /// Whether no damage was found.
    pub fn is_clean(&self) -> bool {
        self.store.is_clean() && self.snapshots.iter().all(|(_, damage)| damage.is_none())
    }
}

/// Why a data directory could not be restored or repaired. Unless the error says otherwise, the directory is
/// unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages describe the fields")]
pub enum RestoreError {
    /// The directory holds documents.
    #[error("{} holds {documents} documents: restore into another directory, or allow them to be replaced", path.display())]
    NotEmpty { path: PathBuf, documents: u64 },
    /// The backup is damaged or not a backup.
    #[error("the backup cannot be restored: {0}")]
    Backup(#[from] BackupError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] store::OpenError),
    /// Files cannot be written or renamed.
    #[error("cannot write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The new store has replaced the old one, but the disk did not confirm it.
    #[error(
        "the new store is in place as {}, but may be lost in a power failure, as the directory cannot be \
         synced: {source}{}",
        path.display(),
        kept.as_ref().map(|kept| format!("; the old one is {}", kept.display())).unwrap_or_default()
    )]
    NotSynced { path: PathBuf, kept: Option<PathBuf>, source: io::Error },
}

impl DataDir {
    /// Locks `path`, creating it if necessary. Removes a store whose construction was interrupted: its source still
    /// exists.
    pub fn lock(path: &Path) -> Result<DataDir, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        create_dir_durably(path).map_err(failed)?;
        let lock = acquire_lock(path)?;
        match fs::remove_file(path.join(UNFINISHED_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        Ok(DataDir { path: path.to_owned(), _lock: Some(lock) })
    }

    /// Locks an existing directory for [`DataDir::check`], which changes nothing in it. Unlike [`DataDir::lock`], this
    /// works for a directory that is not writable. If that has no lock file either, the caller makes sure that no
    /// process with more rights uses it.
    pub fn lock_unchanged(path: &Path) -> Result<DataDir, OpenError> {
        let lock_path = path.join(LOCK_FILE);
        let lock = match acquire_lock(path) {
            Ok(lock) => Some(lock),
            Err(OpenError::NotWritable { .. }) => match File::open(&lock_path) {
                Ok(file) => Some(lock_file(file, lock_path)?),
                Err(_) => None,
            },
            Err(error) => return Err(error),
        };
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// Path of the store file.
    pub fn store_file(&self) -> PathBuf {
        self.path.join(STORE_FILE)
    }

    pub(crate) fn snapshots(&self) -> Result<DirectoryStorage, OpenError> {
        let path = self.path.join(SNAPSHOT_DIRECTORY);
        DirectoryStorage::open(path.clone()).map_err(|source| OpenError::Io { path, source })
    }

    /// Reads and verifies everything: the store's pages and rows, their consistency, and every snapshot, which is
    /// compared with the documents. `now_ms` is the time in Unix milliseconds: a snapshot need not contain documents that
    /// have expired.
    pub fn check(&self, cpu: Cpu, now_ms: u64) -> Result<CheckReport, OpenError> {
        let mut store = Store::open_unchanged(&self.store_file(), OPTIONS)?;
        let mut report = store.check();
        let storage = std::sync::Arc::new(DirectoryStorage::existing(self.path.join(SNAPSHOT_DIRECTORY)));
        let failed = |source| OpenError::Io { path: self.path.join(SNAPSHOT_DIRECTORY), source };
        let mut names = storage.names().map_err(failed)?;
        names.retain(|name| !Snapshots::is_unfinished(name));
        names.sort();
        let snapshots = Snapshots::unchanged(storage, store.id());
        let reader = store.read().ok();
        let schemas = reader.as_ref().and_then(|reader| reader.schemas().ok()).unwrap_or_default();
        report.damage.extend(invalid_schemas(&schemas).map(|reason| StoreError::Damaged { reason }));
        // A snapshot cannot be compared with what is damaged.
        let reader = reader.filter(|_| report.is_clean());
        let snapshot_damage = |name: &str| -> Option<String> {
            let found = schemas.iter().find(|(version, _)| Snapshots::file_name(*version) == name);
            let Some((version, schema)) = found else {
                return Some("it belongs to no existing collection".to_owned());
            };
            let schema = match Schema::from_stored_bytes(schema) {
                Ok(schema) => std::sync::Arc::new(schema),
                Err(reason) => return Some(format!("its collection's schema is damaged: {reason}")),
            };
            let source = SnapshotSource { version: *version, schema, snapshots: &snapshots, cpu, now_ms };
            match &reader {
                Some(reader) => compare_snapshot(&source, reader),
                None => snapshots.read(*version, &source.schema, cpu).err().map(|error| error.to_string()),
            }
        };
        let snapshots = names.into_iter().map(|name| {
            let damage = snapshot_damage(&name);
            (name, damage)
        });
        Ok(CheckReport { store: report, snapshots: snapshots.collect() })
    }

    /// Restores the store from a backup. Fails if the directory holds documents, unless `replace` is set: then the
    /// old store is kept under the returned path.
    pub fn restore(
        &self,
        backup: impl Read,
        replace: bool,
    ) -> Result<(Backup, Option<PathBuf>), RestoreError> {
        let store_exists = self.store_file().exists();
        if store_exists && !replace {
            let store = Store::open(&self.store_file(), OPTIONS)?;
            let documents = store.read().and_then(|reader| reader.document_count());
            let documents = documents.map_err(BackupError::Store)?;
            if documents > 0 {
                return Err(RestoreError::NotEmpty { path: self.path.clone(), documents });
            }
        }
        let summary = self.restore_unfinished(backup).inspect_err(|_| self.discard_unfinished())?;
        let kept = self.install(store_exists.then_some("replaced"))?;
        Ok((summary, kept))
    }

    /// Restores a backup into the unfinished store, and checks every row and schema.
    fn restore_unfinished(&self, backup: impl Read) -> Result<Backup, RestoreError> {
        let path = self.path.join(UNFINISHED_FILE);
        let summary = Backup::restore(backup, &path, OPTIONS)?;
        let store = Store::open(&path, OPTIONS)?;
        let schemas = store.read().and_then(|reader| reader.schemas()).map_err(BackupError::Store)?;
        match invalid_schemas(&schemas).next() {
            None => Ok(summary),
            Some(reason) => Err(BackupError::Damaged { reason }.into()),
        }
    }

    /// Copies everything readable in a damaged store into a new one and reports what was lost. The old store is kept
    /// under the returned path. Snapshots are removed and rebuilt later.
    pub fn repair(&self) -> Result<(IntegrityReport, PathBuf), RestoreError> {
        // It is not written to, so damage in redb's own lists does not prevent this.
        let store = Store::open_unchanged(&self.store_file(), OPTIONS)?;
        let salvaged = store.salvage(&self.path.join(UNFINISHED_FILE), OPTIONS);
        let report = salvaged.inspect_err(|_| self.discard_unfinished())?;
        drop(store);
        let kept = self.install(Some("damaged"))?;
        Ok((report, kept.expect("a store that was read exists")))
    }

    /// Converts a store of the older format `from` to the current one, after making a copy of its file. On failure, or
    /// if the process is killed, the store is either unchanged or completely converted. Returns the converted store and
    /// where the copy is.
    pub(crate) fn upgrade(
        &self,
        store: Store,
        from: u32,
        options: Options,
        progress: &Progress,
    ) -> Result<(Store, PathBuf), OpenError> {
        // Closed, so that the file is complete without recovery.
        drop(store);
        let path = self.store_file();
        let failed = |source| OpenError::Upgrade { path: path.clone(), from, source };
        let copy = self.path.join(format!("{STORE_FILE}.format-{from}"));
        self.copy_store(&copy, from, progress).inspect_err(|_| self.discard_unfinished()).map_err(failed)?;
        progress.start(format!("converting the store from format {from}"));
        let store = Store::open(&path, options)?;
        store.upgrade().map_err(|error| failed(io::Error::other(error)))?;
        Ok((store, copy))
    }

    /// Durably copies the store file, replacing what an interrupted attempt left.
    fn copy_store(&self, copy: &Path, from: u32, progress: &Progress) -> io::Result<()> {
        const CHUNK_BYTES: u64 = 16 << 20;
        let unfinished = self.path.join(UNFINISHED_FILE);
        let mut source = File::open(self.store_file())?;
        let len = source.metadata()?.len();
        progress.start(format!(
            "copying the store before converting it from format {from}, MiB of {}",
            len >> 20
        ));
        let mut target = create_file(&unfinished)?;
        loop {
            let copied = io::copy(&mut (&mut source).take(CHUNK_BYTES), &mut target)?;
            if copied == 0 {
                break;
            }
            progress.advance((copied >> 20) as usize);
        }
        target.sync_all()?;
        fs::rename(&unfinished, copy)?;
        sync_directory(&self.path)
    }

    fn discard_unfinished(&self) {
        // If it cannot be removed now, it is removed when the directory is next locked.
        let _ = fs::remove_file(self.path.join(UNFINISHED_FILE));
    }

    /// Atomically replaces the store with the unfinished one. With `suffix`, keeps the old store under a name that
    /// ends in the suffix and a number.
    fn install(&self, suffix: Option<&str>) -> Result<Option<PathBuf>, RestoreError> {
        let store = self.store_file();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RestoreError::Io { path, source }
        };
        let kept = match suffix {
            Some(suffix) => {
                let mut numbered = 1..;
                let kept = loop {
                    let number: u32 = numbered.next().expect("there are fewer files than 32-bit numbers");
                    let name = self.path.join(format!("{STORE_FILE}.{suffix}-{number}"));
                    // A second link to the same file, so that a store exists at every moment.
                    match fs::hard_link(&store, &name) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        linked => {
                            linked.map_err(failed(&name))?;
                            break name;
                        }
                    }
                };
                Some(kept)
            }
            None => None,
        };
        fs::rename(self.path.join(UNFINISHED_FILE), &store).map_err(failed(&store))?;
        sync_directory(&self.path).map_err(|source| RestoreError::NotSynced {
            path: store,
            kept: kept.clone(),
            source,
        })?;
        // The snapshots belong to the old store. If they cannot be removed, the engine discards them when it opens,
        // with a warning: the new store has another id.
        let entries = fs::read_dir(self.path.join(SNAPSHOT_DIRECTORY)).into_iter().flatten().flatten();
        // A directory that was no data directory may have other files in one of that name.
        for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(Snapshots::is_file_name)) {
            let _ = fs::remove_file(entry.path());
        }
        Ok(kept)
    }
}

/// Creates a directory and its missing parents, and syncs them so that they survive a power loss.
fn create_dir_durably(path: &Path) -> io::Result<()> {
    let parent_of = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    };
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    create_directory(path)?;
    if missing.is_empty() {
        // The process that created it may have been killed before its sync. The parent may not permit a sync by this
        // user.
        let _ = sync_directory(&parent_of(path));
        return Ok(());
    }
    missing.into_iter().try_for_each(|created| sync_directory(&parent_of(created)))
}

/// What is wrong with a snapshot, if anything.
fn compare_snapshot(source: &SnapshotSource<'_>, reader: &Reader) -> Option<String> {
    let progress = Progress::default();
    let compared = load::from_snapshot(source, reader, &progress).and_then(|loaded| match loaded {
        Ok(Some(collection)) => {
            let difference = comparison::difference(&collection, reader, source.now_ms, &progress)?;
            Ok(difference.map(|difference| format!("it does not match the store: {difference}")))
        }
        Ok(None) => Ok(None),
        Err(reason) => Ok(Some(reason)),
    });
    compared.unwrap_or_else(|error| Some(format!("it cannot be compared with the store: {error}")))
}

/// Describes each invalid schema.
fn invalid_schemas(schemas: &[(CollectionVersion, Vec<u8>)]) -> impl Iterator<Item = String> {
    schemas.iter().filter_map(|(CollectionVersion { id, version }, schema)| {
        let reason = Schema::from_stored_bytes(schema).err()?;
        Some(format!("the schema of collection {id}, version {version}: {reason}"))
    })
}

/// Locks the data directory for as long as the file is open.
fn acquire_lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_FILE);
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    open.mode(0o600);
    match open.open(&path) {
        Ok(file) => lock_file(file, path),
        Err(source) if is_write_protected(&source) => {
            Err(OpenError::NotWritable { path: directory.to_owned(), source })
        }
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn is_write_protected(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn lock_file(file: File, path: PathBuf) -> Result<File, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

#[cfg(test)]
mod tests;
