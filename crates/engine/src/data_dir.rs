//! A data directory no engine has open: looking through it, making it from a backup, repairing it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use index::Cpu;
use store::{Backup, BackupError, CollectionVersion, IntegrityReport, Options, Store, StoreError};

use crate::{
    OpenError,
    file_storage::{DirectoryStorage, FileStorage as _, sync_directory},
    schema::Schema,
    snapshot::Snapshots,
};

pub(crate) const STORE_FILE: &str = "nearfield.redb";
pub(crate) const SNAPSHOT_DIRECTORY: &str = "snapshots";
const LOCK_FILE: &str = "lock";
/// A store that is being made, and no store yet.
const UNFINISHED_FILE: &str = "nearfield.redb.unfinished";
/// For stores that are read once, damaged or not.
const OPTIONS: Options = Options { cache_bytes: 64 << 20, verify_bytes_max: 0 };

/// A data directory, and the lock on it for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// What a look through a data directory found.
#[derive(Debug)]
pub struct CheckReport {
    /// What the store holds, and what is wrong with it.
    pub store: IntegrityReport,
    /// Each snapshot's file, and what is wrong with it if anything is. Snapshots are made again from the store.
    pub snapshots: Vec<(String, Option<String>)>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.store.is_clean() && self.snapshots.iter().all(|(_, damage)| damage.is_none())
    }
}

/// Why a data directory could not be restored or repaired. It stands as it stood before, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum RestoreError {
    /// There are documents.
    #[error("{} holds {documents} documents: restore into another directory, or say that they are to be replaced", path.display())]
    NotEmpty { path: PathBuf, documents: u64 },
    /// The backup is of no use.
    #[error("the backup cannot be restored: {0}")]
    Backup(#[from] BackupError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] store::OpenError),
    /// Files cannot be moved.
    #[error("cannot write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The new store has taken the place of the old one, and the disk did not confirm it.
    #[error(
        "the new store is in place as {}, and may not be after a loss of power, since the directory cannot be \
         synced: {source}{}",
        path.display(),
        kept.as_ref().map(|kept| format!("; the old one is {}", kept.display())).unwrap_or_default()
    )]
    UnsyncedWrites { path: PathBuf, kept: Option<PathBuf>, source: io::Error },
}

impl DataDir {
    /// Takes the lock on `path`, which is made if need be. A store that was not finished is removed: what it was
    /// made from still stands.
    pub fn lock(path: &Path) -> Result<DataDir, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        create_dir_durably(path).map_err(failed)?;
        let lock = take_lock(path.join(LOCK_FILE))?;
        match fs::remove_file(path.join(UNFINISHED_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// The store's file.
    pub fn store_file(&self) -> PathBuf {
        self.path.join(STORE_FILE)
    }

    pub(crate) fn snapshots(&self) -> Result<DirectoryStorage, OpenError> {
        let path = self.path.join(SNAPSHOT_DIRECTORY);
        DirectoryStorage::open(path.clone()).map_err(|source| OpenError::Io { path, source })
    }

    /// Reads everything: pages and rows of the store, whether they agree, and each snapshot.
    pub fn check(&self, cpu: Cpu) -> Result<CheckReport, OpenError> {
        let mut store = self.open_existing()?;
        let mut findings = store.check();
        let folder = std::sync::Arc::new(self.snapshots()?);
        let failed = |source| OpenError::Io { path: self.path.join(SNAPSHOT_DIRECTORY), source };
        let mut names = folder.names().map_err(failed)?;
        names.sort();
        let snapshots = Snapshots::open(folder, store.id()).map_err(failed)?;
        let schemas = store.read().and_then(|reader| reader.schemas()).unwrap_or_default();
        findings.damage.extend(invalid_schemas(&schemas).map(|reason| StoreError::Damaged { reason }));
        let look = |name: &str| -> Option<String> {
            let found = schemas.iter().find(|(version, _)| Snapshots::file_name(*version) == name);
            let Some((version, schema)) = found else {
                return Some("it is of no collection that is there".to_owned());
            };
            let schema = match Schema::from_stored_bytes(schema) {
                Ok(schema) => std::sync::Arc::new(schema),
                Err(reason) => return Some(format!("its collection's schema is damaged: {reason}")),
            };
            snapshots.read(*version, &schema, cpu).err().map(|error| error.to_string())
        };
        let snapshots = names.into_iter().map(|name| {
            let damage = look(&name);
            (name, damage)
        });
        Ok(CheckReport { store: findings, snapshots: snapshots.collect() })
    }

    /// Makes the store from a backup; documents that stand are replaced only if `replace` says so, and the store
    /// they are in is kept beside the new one, under the name returned.
    pub fn restore(
        &self,
        backup: impl Read,
        replace: bool,
    ) -> Result<(Backup, Option<PathBuf>), RestoreError> {
        let stands = self.store_file().exists();
        if stands && !replace {
            let store = Store::open(&self.store_file(), OPTIONS)?;
            let documents = store.read().and_then(|reader| reader.document_count());
            let documents = documents.map_err(BackupError::Store)?;
            if documents > 0 {
                return Err(RestoreError::NotEmpty { path: self.path.clone(), documents });
            }
        }
        let made = self.build_from(backup).inspect_err(|_| self.discard_unfinished())?;
        let kept = self.install(stands.then_some("replaced"))?;
        Ok((made, kept))
    }

    /// The unfinished store, of a backup whose every row is right and whose schemas collections can be made with.
    fn build_from(&self, backup: impl Read) -> Result<Backup, RestoreError> {
        let path = self.path.join(UNFINISHED_FILE);
        let made = Backup::restore(backup, &path, OPTIONS)?;
        let store = Store::open(&path, OPTIONS)?;
        let schemas = store.read().and_then(|reader| reader.schemas()).map_err(BackupError::Store)?;
        match invalid_schemas(&schemas).next() {
            None => Ok(made),
            Some(reason) => Err(BackupError::Damaged { reason }.into()),
        }
    }

    /// Makes a new store of everything the old one holds that can be read, and keeps the old one beside it, under the
    /// name returned. What was lost is what was found. Snapshots go: they are made again.
    pub fn repair(&self) -> Result<(IntegrityReport, PathBuf), RestoreError> {
        let store = self.open_existing()?;
        let saved = store.salvage(&self.path.join(UNFINISHED_FILE), OPTIONS);
        let findings = saved.inspect_err(|_| self.discard_unfinished())?;
        drop(store);
        let kept = self.install(Some("damaged"))?;
        Ok((findings, kept.expect("a store that was read stands")))
    }

    /// The store, if there is one: opening would make an empty one.
    fn open_existing(&self) -> Result<Store, store::OpenError> {
        let path = self.store_file();
        match fs::metadata(&path) {
            Ok(_) => Store::open(&path, OPTIONS),
            Err(source) => Err(store::OpenError::Io { path, source }),
        }
    }

    fn discard_unfinished(&self) {
        // If it cannot go now, it goes when the directory is next opened.
        let _ = fs::remove_file(self.path.join(UNFINISHED_FILE));
    }

    /// The unfinished store becomes the store, at once or not at all; the old one is kept under another name, if
    /// `keep_as` says what it is.
    fn install(&self, keep_as: Option<&str>) -> Result<Option<PathBuf>, RestoreError> {
        let store = self.store_file();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RestoreError::Io { path, source }
        };
        let kept = match keep_as {
            Some(what) => {
                let mut numbered = 1..;
                let kept = loop {
                    let number: u32 = numbered.next().expect("there are fewer files than numbers");
                    let name = self.path.join(format!("{STORE_FILE}.{what}-{number}"));
                    // A second name for the same file: a store stands at every moment.
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
        sync_directory(&self.path).map_err(|source| RestoreError::UnsyncedWrites {
            path: store,
            kept: kept.clone(),
            source,
        })?;
        // Made for the store that was there. Where they cannot be removed they are thrown away when the engine is
        // opened, with a warning: the new store has another identity.
        let _ = fs::remove_dir_all(self.path.join(SNAPSHOT_DIRECTORY));
        Ok(kept)
    }
}

/// Makes a directory and those it lies in, if need be, so that they outlast a loss of power.
fn create_dir_durably(path: &Path) -> io::Result<()> {
    let lies_in = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    };
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(path)?;
    if missing.is_empty() {
        // Who made it may have been killed before this. What it lies in may be nothing of ours, where one may not.
        let _ = sync_directory(&lies_in(path));
        return Ok(());
    }
    missing.into_iter().try_for_each(|made| sync_directory(&lies_in(made)))
}

/// What is wrong with those schemas no collection can be made with.
fn invalid_schemas(schemas: &[(CollectionVersion, Vec<u8>)]) -> impl Iterator<Item = String> {
    schemas.iter().filter_map(|(CollectionVersion { id, version }, schema)| {
        let reason = Schema::from_stored_bytes(schema).err()?;
        Some(format!("the schema of collection {id}, version {version}: {reason}"))
    })
}

/// Takes the lock on the data directory, for as long as the file is open.
fn take_lock(path: PathBuf) -> Result<File, OpenError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

#[cfg(test)]
mod tests;
