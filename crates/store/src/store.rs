//! Opening a store, and its transactions.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use redb::backends::FileBackend;
use redb::{
    BackendError, Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError, WriteTransaction,
};

use crate::contain::{contain, message};
use crate::disk::{Content, Disk};
use crate::state::{FORMAT, State, Unreadable};
use crate::tables;
use crate::{OpenError, Reader, Seq, StoreError, Writer};

/// How to open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of redb's page cache.
    pub cache_bytes: usize,
    /// The longest file whose every page is verified when it is opened, which takes about a second a
    /// gigabyte. In a longer one damage is noticed where an entry is read, and by [`Store::verify`].
    pub verify_bytes_max: u64,
}

impl Default for Options {
    /// 8 MiB of cache, 512 MiB verified.
    fn default() -> Options {
        Options { cache_bytes: 8 << 20, verify_bytes_max: 512 << 20 }
    }
}

/// An open store. Readers see the last commit and wait for nobody; one writer at a time.
#[derive(Debug)]
pub struct Store {
    /// There until it is dropped, and while it is opened again.
    database: RwLock<Option<Database>>,
    disk: Disk,
    path: PathBuf,
    options: Options,
    id: [u8; 16],
    failure: RwLock<Option<Failure>>,
    committed: Mutex<Committed>,
}

/// What the store holds.
#[derive(Clone, Copy, Debug)]
struct Committed {
    /// As the last commit left it.
    last: State,
    /// As the last durable one did.
    synced: State,
    is_synced: bool,
}

/// The first failed write since the store was opened.
#[derive(Clone, Debug)]
struct Failure {
    reason: String,
    /// Whether the disk had no room: then nothing is unknown or lost, and the store may be opened again.
    full: bool,
}

impl Store {
    /// Opens or creates the store in the file `path`, whose directory exists.
    pub fn open(path: &Path, options: Options) -> Result<Store, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let backend = FileBackend::new(file).map_err(|error| open_error(path, error))?;
        let store = Store::open_at(path.to_owned(), backend, options)?;
        // Whether it is new or not: who made it may have been killed before.
        sync_directory_of(path).map_err(failed)?;
        Ok(store)
    }

    /// Opens a store on another disk: memory, or one that fails on purpose.
    pub fn open_with_backend(disk: impl StorageBackend, options: Options) -> Result<Store, OpenError> {
        Store::open_at(PathBuf::from("(on a disk given by the program)"), disk, options)
    }

    fn open_at(path: PathBuf, backend: impl StorageBackend, options: Options) -> Result<Store, OpenError> {
        let disk = Disk::new(backend);
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(&path, &disk, options)));
        let opened = opened
            .unwrap_or_else(|panic| Err(OpenError::Corrupt { path: path.clone(), reason: message(&*panic) }));
        let (database, state) = opened?;
        Ok(Store {
            database: RwLock::new(Some(database)),
            disk,
            path,
            options,
            id: state.id,
            failure: RwLock::new(None),
            committed: Mutex::new(Committed { last: state, synced: state, is_synced: true }),
        })
    }

    /// This store's identity, drawn at random when it was made.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// A consistent view of the last commit.
    pub fn read(&self) -> Result<Reader, StoreError> {
        self.recover();
        self.with(|database| Reader::new(database.begin_read()?))
    }

    /// Begins a transaction, waiting for the one before it to end. Dropped without
    /// [`Writer::commit`], it never happened.
    pub fn write(&self) -> Result<Writer<'_>, StoreError> {
        self.recover();
        self.check_writable()?;
        let begun = self.begin().and_then(|begun| contain(|| Writer::new(self, begun)));
        let begun = begun.map_err(|error| self.refuse_writes_if_fatal(error));
        // Again, since the transaction this one waited for may have failed meanwhile.
        self.check_writable()?;
        begun
    }

    /// A transaction of redb's own, for rows that are put in as they are.
    pub(crate) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.with(|database| Ok(database.begin_write()?))
    }

    /// Makes all durable that was committed. Does nothing where it is. After a failure the store refuses writes until
    /// it is opened again, which loses what was not durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        if self.is_synced() { Ok(()) } else { self.write()?.commit() }
    }

    /// Whether all that was committed is durable.
    pub fn is_synced(&self) -> bool {
        self.committed.lock().expect(UNPOISONED).is_synced
    }

    /// The last change that is durable.
    pub fn synced_seq(&self) -> Seq {
        self.committed.lock().expect(UNPOISONED).synced.last_seq
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        self.disk.len().map_err(|source| StoreError::Io { source })
    }

    /// Reads the whole file and verifies the checksum of every page. What a read returns was
    /// verified by itself; that something is *missing*, because a page which led to it was
    /// damaged, only this can tell. Needs a store without readers, iterators or a writer.
    ///
    /// After [`StoreError::Damaged`] the store refuses writes.
    pub fn verify(&mut self) -> Result<(), StoreError> {
        let database = self.database.get_mut().expect(UNPOISONED).as_mut();
        let Some(database) = database else { return Err(StoreError::DiskFailedEarlier) };
        let verified = contain(|| match database.check_integrity() {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(StoreError::Damaged { reason: "pages did not match their checksums".to_owned() })
            }
            Err(DatabaseError::TransactionInProgress) => Err(StoreError::InUse),
            Err(DatabaseError::Storage(error)) => Err(error.into()),
            Err(other) => Err(StoreError::Damaged { reason: other.to_string() }),
        });
        verified.map_err(|error| self.refuse_writes_if_fatal(error))
    }

    fn with<T>(&self, step: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read().expect(UNPOISONED);
        let Some(database) = &*database else { return Err(StoreError::DiskFailedEarlier) };
        contain(|| step(database))
    }

    /// Opens a store whose disk was full again: redb reads and writes no more after a failure. Nothing of what was
    /// committed is in doubt, as it would be after a failed sync, or lost, as would be what was not synced.
    ///
    /// Readers begun before find [`StoreError::DiskFailedEarlier`], those that come wait meanwhile.
    fn recover(&self) {
        let is_full = |failure: &Option<Failure>| failure.as_ref().is_some_and(|failure| failure.full);
        if !is_full(&self.failure.read().expect(UNPOISONED)) || self.disk.sync_has_failed() {
            return;
        }
        let mut database = self.database.write().expect(UNPOISONED);
        if !is_full(&self.failure.read().expect(UNPOISONED)) {
            return;
        }
        close(database.take());
        // Verified as a whole when it was first opened, if it was to be: everybody waits, and each failure comes here.
        let options = Options { verify_bytes_max: 0, ..self.options };
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(&self.path, &self.disk, options)));
        // Where there is no room even for that, the next one tries again.
        if let Ok(Ok((opened, state))) = opened {
            *database = Some(opened);
            // What was refused may have been made all the same; whoever derived something from this store did not
            // hear of it.
            let as_known = state == self.committed.lock().expect(UNPOISONED).last;
            let reason = "a write that found no room was made all the same".to_owned();
            *self.failure.write().expect(UNPOISONED) = (!as_known).then_some(Failure { reason, full: false });
        }
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        match &*self.failure.read().expect(UNPOISONED) {
            Some(Failure { reason, full: true }) => Err(StoreError::DiskFull { reason: reason.clone() }),
            Some(Failure { reason, full: false }) => Err(StoreError::ReadOnly { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn note_committed(&self, state: State, is_synced: bool) {
        let mut committed = self.committed.lock().expect(UNPOISONED);
        committed.last = state;
        committed.is_synced = is_synced;
        if is_synced {
            committed.synced = state;
        }
    }

    /// Remembers the first failure, of a write that was `structural` or not, and returns what is to be said of it.
    ///
    /// What is not synced is lost when redb is closed after a failure. Opened again, the store would be behind
    /// whatever was derived from it, so that must not happen in this process, though only room was lacking.
    pub(crate) fn refuse_writes(&self, failure: StoreError, structural: bool) -> StoreError {
        let Committed { last, synced, is_synced } = *self.committed.lock().expect(UNPOISONED);
        let full = failure.is_full() && !structural && !self.disk.sync_has_failed() && is_synced;
        let reason = if is_synced {
            failure.to_string()
        } else {
            format!(
                "{failure}; changes {} to {} were acknowledged before they were durable, and may be lost",
                synced.last_seq + 1,
                last.last_seq
            )
        };
        let mut known = self.failure.write().expect(UNPOISONED);
        let known = known.get_or_insert_with(|| Failure { reason: reason.clone(), full });
        // What is told of room must not be waited for, where room does not help.
        let is_passing = known.full || !failure.is_full();
        if is_synced && is_passing { failure } else { StoreError::ReadOnly { reason } }
    }

    pub(crate) fn refuse_writes_if_fatal(&self, error: StoreError) -> StoreError {
        if error.is_fatal() { self.refuse_writes(error, false) } else { error }
    }
}

const UNPOISONED: &str = "panics of redb are contained while a lock is held";

/// Closing commits once more, and on a damaged or full disk redb may panic at it: what was acknowledged is durable
/// already, or [`Store::sync`] has told that it is not, and there is nobody to tell.
fn close(database: Option<Database>) {
    let _ = contain(|| {
        drop(database);
        Ok(())
    });
}

impl Drop for Store {
    fn drop(&mut self) {
        close(self.database.get_mut().expect(UNPOISONED).take());
    }
}

fn open_database(path: &Path, disk: &Disk, options: Options) -> Result<(Database, State), OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    match disk.content().map_err(failed)? {
        Content::Empty | Content::Redb => {}
        Content::Unfinished => clear(path, disk)?,
        Content::Foreign => {
            return Err(OpenError::NotAStore {
                path: path.to_owned(),
                reason: "it does not begin as one".to_owned(),
            });
        }
    }
    let verifies = disk.len().map_err(failed)? <= options.verify_bytes_max;
    let database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(verifies)
        .create_with_backend(disk.clone())
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

/// Empties a file whose creation was cut off, unless another process is creating it just now.
fn clear(path: &Path, disk: &Disk) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let whole = (Bound::Unbounded, Bound::Unbounded);
    let locked = match disk.try_lock_range(whole.0, whole.1) {
        Ok(true) => true,
        Ok(false) => {
            return Err(OpenError::AlreadyOpen { path: path.to_owned() });
        }
        Err(BackendError::Unsupported) => false,
        Err(error) => return Err(failed(error.into())),
    };
    let cleared = match disk.content() {
        Ok(Content::Unfinished) => disk.set_len(0),
        other => other.map(|_| ()),
    };
    if locked {
        disk.unlock_range(whole.0, whole.1).map_err(|error| failed(error.into()))?;
    }
    cleared.map_err(failed)
}

/// The state of the store in `database`; `None` where nothing was ever committed.
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
        Err(_) => return Err(foreign("it is a redb database of another program")),
    };
    let Some(row) = tables::state_row(&meta).map_err(|error| open_error(path, error.into()))? else {
        return Err(foreign("it is a redb database of another program"));
    };
    match State::decode(row.value()) {
        Ok(state) => Ok(Some(state)),
        Err(Unreadable::NewerFormat { format }) => {
            Err(OpenError::NewerFormat { path: path.to_owned(), found: format, supported: FORMAT })
        }
        Err(Unreadable::Corrupt { reason }) => Err(corrupt(format!("table meta, key state: {reason}"))),
    }
}

/// Makes every table, so that none is missing later, and draws the identity.
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
    transaction.commit()?;
    Ok(state)
}

/// SipHash under keys the standard library draws from the system: unique, which is all an identity needs.
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
            OpenError::Corrupt { path, reason: "the file is shorter than it says".to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(source)) => OpenError::Io { path, source },
        other => OpenError::Corrupt { path, reason: other.to_string() },
    }
}

/// Makes the entry of a file in its directory durable: syncing the file does not.
#[cfg(unix)]
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Elsewhere directories cannot be synced.
#[cfg(not(unix))]
fn sync_directory_of(_path: &Path) -> io::Result<()> {
    Ok(())
}
