//! Opening a store and starting transactions.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Bound;
#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use redb::backends::FileBackend;
use redb::{
    BackendError, Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError, WriteTransaction,
};

use crate::file_identity::FileIdentity;
use crate::overlay::Overlay;
use crate::page_tree::{self, PageError};
use crate::panic::{catch_panic, panic_message};
use crate::shared_backend::{FileContent, SharedBackend};
use crate::state::{FORMAT, State, StateError};
use crate::tables;
use crate::{HistoryId, OpenError, Reader, Seq, StoreError, Writer};

/// Options for opening a store.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// Files up to this length are verified completely when they are opened, which takes about one second
    /// per gigabyte. In longer files only the pages with pointers and redb's lists of free pages are verified; damage in
    /// others is detected when an entry is read, and by [`Store::verify`].
    pub verify_bytes_max: u64,
}

impl Default for Options {
    /// A cache of 8 MiB, and verification of files up to 512 MiB.
    fn default() -> Options {
        Options { cache_bytes: 8 << 20, verify_bytes_max: 512 << 20 }
    }
}

/// An open store. Readers see the last commit and never block. There is one writer at a time.
#[derive(Debug)]
pub struct Store {
    /// `None` only while the store is being reopened or dropped, and after a failed attempt to reopen it.
    database: RwLock<Option<Database>>,
    backend: SharedBackend,
    path: PathBuf,
    /// `None` if the store is not in a file.
    file: Option<FileIdentity>,
    options: Options,
    id: [u8; 16],
    /// The history of the changes made since this opening. The first of them begins it.
    history: HistoryId,
    failure: RwLock<Option<Failure>>,
    committed: Mutex<Committed>,
}

/// Whether what writing depends on is verified when a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verification {
    Required,
    /// To examine a damaged store, which is not written to.
    Omitted,
}

/// The store's state at the last commit and at the last durable commit.
#[derive(Clone, Copy, Debug)]
struct Committed {
    /// State after the last commit.
    last: State,
    /// State after the last durable commit.
    synced: State,
    /// Whether the last commit is durable.
    is_synced: bool,
}

/// The first failed write since the store was opened.
#[derive(Clone, Debug)]
struct Failure {
    reason: String,
    /// Whether the disk was full. In that case no data is lost or in doubt, and the store may be reopened.
    disk_full: bool,
}

impl Store {
    /// Opens the store in the file `path`, or creates it. The directory must exist.
    pub fn open(path: &Path, options: Options) -> Result<Store, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false);
        // For the owner only, if it is created.
        #[cfg(unix)]
        open.mode(0o600);
        let file = open.open(path).map_err(failed)?;
        let identity = FileIdentity::of(&file).map_err(failed)?;
        let backend = FileBackend::new(file).map_err(|error| open_error(path, error))?;
        let mut store = Store::open_at(path.to_owned(), backend, options, Verification::Required)?;
        store.file = Some(identity);
        // Also for an existing file: the process that created it may have been killed before this step.
        sync_directory_of(path).map_err(failed)?;
        Ok(store)
    }

    /// Opens an existing store without writing to its file. Writes, such as the recovery of a store that was not closed,
    /// happen in memory only. The store may be damaged. The caller makes sure that no other process has it open.
    pub fn open_unchanged(path: &Path, options: Options) -> Result<Store, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        let overlay = File::open(path).and_then(Overlay::new).map_err(failed)?;
        Store::open_at(path.to_owned(), overlay, options, Verification::Omitted)
    }

    /// Opens a store on another backend, such as memory or a backend that injects faults.
    pub fn open_with_backend(backend: impl StorageBackend, options: Options) -> Result<Store, OpenError> {
        Store::open_at(PathBuf::from("(custom backend)"), backend, options, Verification::Required)
    }

    fn open_at(
        path: PathBuf,
        backend: impl StorageBackend,
        options: Options,
        verification: Verification,
    ) -> Result<Store, OpenError> {
        let backend = SharedBackend::new(backend);
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(&path, &backend, options, verification)));
        let opened = opened.unwrap_or_else(|panic| {
            Err(OpenError::Corrupt { path: path.clone(), reason: panic_message(&*panic) })
        });
        let (database, state) = opened?;
        Ok(Store {
            database: RwLock::new(Some(database)),
            backend,
            path,
            file: None,
            options,
            id: state.id,
            history: HistoryId(random_id()),
            failure: RwLock::new(None),
            committed: Mutex::new(Committed { last: state, synced: state, is_synced: true }),
        })
    }

    /// The store's identity, chosen at random when it was created.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The history that changes made since this opening belong to.
    pub(crate) fn history(&self) -> HistoryId {
        self.history
    }

    /// The last committed change, and the history it belongs to.
    pub fn last_change(&self) -> (HistoryId, Seq) {
        let State { history, last_seq, .. } = self.committed.lock().expect(UNPOISONED).last;
        (history, last_seq)
    }

    /// The format of the file, if it is an older one. The next write converts the store to the current format. See
    /// [`Store::upgrade`].
    pub fn outdated_format(&self) -> Option<u32> {
        let State { format, .. } = self.committed.lock().expect(UNPOISONED).last;
        (format < FORMAT).then_some(format)
    }

    /// Converts a store of an older format to the current one, durably and in one transaction. An earlier version
    /// cannot open the store afterwards.
    pub fn upgrade(&self) -> Result<(), StoreError> {
        if self.outdated_format().is_some() { self.write()?.commit() } else { Ok(()) }
    }

    /// A consistent snapshot of the last commit.
    pub fn read(&self) -> Result<Reader, StoreError> {
        self.reopen_if_disk_was_full();
        self.with_database(|database| Reader::new(database.begin_read()?))
    }

    /// Begins a write transaction, after waiting for the previous one to end. Dropping it without
    /// [`Writer::commit`] discards its changes.
    pub fn write(&self) -> Result<Writer<'_>, StoreError> {
        self.reopen_if_disk_was_full();
        self.check_writable()?;
        let writer = self.begin().and_then(|transaction| catch_panic(|| Writer::new(self, transaction)));
        let writer = writer.map_err(|error| self.record_if_fatal(error));
        // Checked again, because the transaction this one waited for may have failed meanwhile.
        self.check_writable()?;
        writer
    }

    /// Begins a redb transaction, for inserting rows without interpreting them.
    pub(crate) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.with_database(|database| Ok(database.begin_write()?))
    }

    /// Makes all commits durable. Does nothing if they already are. After a failure the store rejects writes
    /// until it is reopened, and reopening loses the commits that were not durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        if self.is_synced() { Ok(()) } else { self.write()?.commit() }
    }

    /// Whether all commits are durable.
    pub fn is_synced(&self) -> bool {
        self.committed.lock().expect(UNPOISONED).is_synced
    }

    /// Sequence number of the last durable change.
    pub fn synced_seq(&self) -> Seq {
        self.committed.lock().expect(UNPOISONED).synced.last_seq
    }

    /// Fails if the file is no longer where it was opened: moved, deleted or replaced. From then on the store rejects
    /// writes. Every commit checks this as well, before it is reported as successful.
    pub fn check_in_place(&self) -> Result<(), StoreError> {
        let Some(file) = self.file else { return Ok(()) };
        file.check(&self.path).map_err(|error| self.record_failure(error, false))
    }

    /// Length of the file, in bytes.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        self.backend.len().map_err(|source| StoreError::Io { source })
    }

    /// Reads the whole file and verifies the checksum of every page. Reads verify each entry they
    /// return, but only this method detects all entries that are *missing* because a page above them
    /// is damaged. The store must have no readers, iterators or writer.
    ///
    /// After [`StoreError::Damaged`] the store rejects writes.
    pub fn verify(&mut self) -> Result<(), StoreError> {
        let database = self.database.get_mut().expect(UNPOISONED).as_mut();
        let Some(database) = database else { return Err(StoreError::DiskFailedEarlier) };
        let verified = catch_panic(|| match database.check_integrity() {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Damaged { reason: "page checksums do not match".to_owned() }),
            Err(DatabaseError::TransactionInProgress) => Err(StoreError::InUse),
            Err(DatabaseError::Storage(error)) => Err(error.into()),
            Err(other) => Err(StoreError::Damaged { reason: other.to_string() }),
        });
        verified.map_err(|error| self.record_if_fatal(error))
    }

    fn with_database<T>(
        &self,
        step: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().expect(UNPOISONED);
        let Some(database) = &*database else { return Err(StoreError::DiskFailedEarlier) };
        catch_panic(|| step(database))
    }

    /// Reopens a store whose disk was full, because redb rejects all calls after a failure. This happens only
    /// if no sync has failed and all commits are durable, so no committed data is lost or in doubt.
    ///
    /// Existing readers get [`StoreError::DiskFailedEarlier`]. New readers and writers wait meanwhile.
    fn reopen_if_disk_was_full(&self) {
        let is_full = |failure: &Option<Failure>| failure.as_ref().is_some_and(|failure| failure.disk_full);
        if !is_full(&self.failure.read().expect(UNPOISONED)) || self.backend.sync_has_failed() {
            return;
        }
        let mut database = self.database.write().expect(UNPOISONED);
        if !is_full(&self.failure.read().expect(UNPOISONED)) {
            return;
        }
        close(database.take());
        // Full verification is skipped: the first opening verified the file as configured, all callers wait for
        // this, and it can happen after every failed write.
        let options = Options { verify_bytes_max: 0, ..self.options };
        let opened = catch_unwind(AssertUnwindSafe(|| {
            open_database(&self.path, &self.backend, options, Verification::Required)
        }));
        // If the disk is too full even for opening, the next call tries again.
        if let Ok(Ok((opened, state))) = opened {
            *database = Some(opened);
            // The write that failed may have been committed after all. Data derived from this store does not
            // reflect it, so the store becomes read-only.
            let is_unchanged = state == self.committed.lock().expect(UNPOISONED).last;
            let reason =
                "a write that failed because the disk was full was committed nevertheless".to_owned();
            *self.failure.write().expect(UNPOISONED) =
                (!is_unchanged).then_some(Failure { reason, disk_full: false });
        }
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        match &*self.failure.read().expect(UNPOISONED) {
            Some(Failure { reason, disk_full: true }) => Err(StoreError::DiskFull { reason: reason.clone() }),
            Some(Failure { reason, disk_full: false }) => {
                Err(StoreError::ReadOnly { reason: reason.clone() })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn record_commit(&self, state: State, is_synced: bool) {
        let mut committed = self.committed.lock().expect(UNPOISONED);
        committed.last = state;
        committed.is_synced = is_synced;
        if is_synced {
            committed.synced = state;
        }
    }

    /// Records the first failed write and returns the error to report. `ddl` is whether the write changed
    /// schemas or names.
    ///
    /// Closing redb after a failure loses the commits that were not synced. A store reopened by this process would
    /// then be behind the data derived from it, so in that case even a full disk is a permanent failure.
    pub(crate) fn record_failure(&self, failure: StoreError, ddl: bool) -> StoreError {
        let Committed { last, synced, is_synced } = *self.committed.lock().expect(UNPOISONED);
        let disk_full = failure.is_full() && !ddl && !self.backend.sync_has_failed() && is_synced;
        let reason = if is_synced {
            failure.to_string()
        } else {
            format!(
                "{failure}; changes {} to {} were acknowledged but are not durable, and may be lost",
                synced.last_seq + 1,
                last.last_seq
            )
        };
        let mut recorded = self.failure.write().expect(UNPOISONED);
        let recorded = recorded.get_or_insert_with(|| Failure { reason: reason.clone(), disk_full });
        // Reporting a full disk makes callers wait for space, which is pointless if the store stays read-only.
        let is_transient = recorded.disk_full || !failure.is_full();
        if is_synced && is_transient { failure } else { StoreError::ReadOnly { reason } }
    }

    pub(crate) fn record_if_fatal(&self, error: StoreError) -> StoreError {
        if error.is_fatal() { self.record_failure(error, false) } else { error }
    }
}

const UNPOISONED: &str = "panics of redb are caught while a lock is held";

/// Closes a database. Closing commits once more, which can make redb panic on a damaged or full disk. The
/// error is ignored: acknowledged changes are either durable already, or [`Store::is_synced`] has reported
/// that they are not.
fn close(database: Option<Database>) {
    let _ = catch_panic(|| {
        drop(database);
        Ok(())
    });
}

impl Drop for Store {
    fn drop(&mut self) {
        close(self.database.get_mut().expect(UNPOISONED).take());
    }
}

fn open_database(
    path: &Path,
    backend: &SharedBackend,
    options: Options,
    verification: Verification,
) -> Result<(Database, State), OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    match backend.content().map_err(failed)? {
        FileContent::Empty | FileContent::Redb => {}
        FileContent::Unfinished => truncate_unfinished(path, backend)?,
        FileContent::Foreign => {
            return Err(OpenError::NotAStore {
                path: path.to_owned(),
                reason: "its first bytes are not those of a store".to_owned(),
            });
        }
    }
    let verify = backend.len().map_err(failed)? <= options.verify_bytes_max;
    if !verify && verification == Verification::Required {
        page_tree::verify(backend).map_err(|error| match error {
            PageError::Io(source) => failed(source),
            PageError::Damaged(reason) => {
                OpenError::Corrupt { path: path.to_owned(), reason: reason.to_owned() }
            }
        })?;
    }
    let database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(verify)
        .create_with_backend(backend.clone())
        .map_err(|error| open_error(path, error))?;
    let state = match stored_state(path, &database)? {
        Some(state) => state,
        None => initialise(&database).map_err(|error| match error {
            StoreError::Io { source } => OpenError::Io { path: path.to_owned(), source },
            other => OpenError::Corrupt { path: path.to_owned(), reason: other.to_string() },
        })?,
    };
    Ok((database, state))
}

/// Truncates a file whose creation was interrupted, unless another process is creating it at this moment.
fn truncate_unfinished(path: &Path, backend: &SharedBackend) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let whole = (Bound::Unbounded, Bound::Unbounded);
    let locked = match backend.try_lock_range(whole.0, whole.1) {
        Ok(true) => true,
        Ok(false) => {
            return Err(OpenError::AlreadyOpen { path: path.to_owned() });
        }
        Err(BackendError::Unsupported) => false,
        Err(error) => return Err(failed(error.into())),
    };
    let cleared = match backend.content() {
        Ok(FileContent::Unfinished) => backend.set_len(0),
        other => other.map(|_| ()),
    };
    if locked {
        backend.unlock_range(whole.0, whole.1).map_err(|error| failed(error.into()))?;
    }
    cleared.map_err(failed)
}

/// The state of the store in `database`, or `None` if nothing was ever committed.
fn stored_state(path: &Path, database: &Database) -> Result<Option<State>, OpenError> {
    let corrupt = |reason: String| OpenError::Corrupt { path: path.to_owned(), reason };
    let foreign = |reason: &str| OpenError::NotAStore { path: path.to_owned(), reason: reason.to_owned() };
    let transaction = database.begin_read().map_err(|error| corrupt(error.to_string()))?;
    if transaction.list_tables().map_err(|error| open_error(path, error.into()))?.next().is_none() {
        return Ok(None);
    }
    let meta = match transaction.open_table(tables::META) {
        Ok(meta) => meta,
        Err(redb::TableError::Storage(error)) => return Err(open_error(path, error.into())),
        Err(_) => return Err(foreign("it is the redb database of another program")),
    };
    let Some(row) = tables::state_row(&meta).map_err(|error| open_error(path, error.into()))? else {
        return Err(corrupt("table meta, key state: the row is missing".to_owned()));
    };
    match State::decode(row.value()) {
        Ok(state) => Ok(Some(state)),
        Err(StateError::NewerFormat { format }) => {
            Err(OpenError::NewerFormat { path: path.to_owned(), found: format, supported: FORMAT })
        }
        Err(StateError::UnknownFeatures { features }) => {
            Err(OpenError::UnknownFeatures { path: path.to_owned(), features })
        }
        Err(StateError::Corrupt { reason }) => Err(corrupt(format!("table meta, key state: {reason}"))),
    }
}

/// Creates all tables, so that later reads find them, and chooses the store's identity.
fn initialise(database: &Database) -> Result<State, StoreError> {
    let state = State::new(random_id());
    let transaction = database.begin_write()?;
    transaction.open_table(tables::META)?.insert(tables::STATE_ROW, &*state.encode())?;
    transaction.open_table(tables::KEYS)?;
    transaction.open_table(tables::DOCUMENTS)?;
    transaction.open_table(tables::VECTORS)?;
    transaction.open_table(tables::CHANGES)?;
    transaction.open_table(tables::EXPIRIES)?;
    transaction.open_table(tables::SCHEMAS)?;
    transaction.open_table(tables::NAMES)?;
    transaction.open_table(tables::HISTORIES)?;
    transaction.commit()?;
    Ok(state)
}

/// Hashes with the standard library's randomly keyed SipHash. An identity must be unique, but not unpredictable.
fn random_id() -> [u8; 16] {
    let keys = RandomState::new();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&keys.hash_one(0u8).to_le_bytes());
    id[8..].copy_from_slice(&keys.hash_one(1u8).to_le_bytes());
    id
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::AlreadyOpen { path }
        }
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() == io::ErrorKind::UnexpectedEof => {
            OpenError::Corrupt { path, reason: "the file is truncated".to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(source)) => OpenError::Io { path, source },
        other => OpenError::Corrupt { path, reason: other.to_string() },
    }
}

/// Syncs the directory of a file, because syncing a file does not make its directory entry durable.
#[cfg(unix)]
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Other platforms cannot sync directories.
#[cfg(not(unix))]
fn sync_directory_of(_path: &Path) -> io::Result<()> {
    Ok(())
}
