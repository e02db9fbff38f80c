//! The storage backend, shared between redb and the store.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

/// Forwards every call. redb takes ownership of its backend, but the store still needs the file's length and
/// must know whether a sync has failed.
#[derive(Clone, Debug)]
pub(crate) struct SharedBackend {
    backend: Arc<dyn StorageBackend>,
    /// Whether a sync has failed. The content of the disk is unknown from then on.
    sync_failed: Arc<AtomicBool>,
}

/// The first bytes of a redb file.
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// redb writes its header to the first page. While creating a file it writes nothing else.
const HEADER_PAGE_BYTES: u64 = 4096;

/// The content of a file before redb opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileContent {
    /// No content: a store can be created here.
    Empty,
    /// A file whose creation was interrupted. It never contained a commit.
    Unfinished,
    /// A redb file, judging by its first bytes.
    Redb,
    /// Any other file.
    Foreign,
}

impl SharedBackend {
    pub(crate) fn new(backend: impl StorageBackend) -> SharedBackend {
        SharedBackend { backend: Arc::new(backend), sync_failed: Arc::default() }
    }

    pub(crate) fn sync_has_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    pub(crate) fn content(&self) -> io::Result<FileContent> {
        let len = self.len()?;
        if len == 0 {
            return Ok(FileContent::Empty);
        }
        let mut head = vec![0; MAGIC.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        self.read(0, &mut head)?;
        if head == MAGIC {
            return Ok(FileContent::Redb);
        }
        // redb extends the file, writes and syncs the header without the magic number, and then
        // writes the magic number. An interrupted creation leaves at most a header.
        if head.iter().all(|byte| *byte == 0) && self.is_zero_from(HEADER_PAGE_BYTES, len)? {
            return Ok(FileContent::Unfinished);
        }
        Ok(FileContent::Foreign)
    }

    fn is_zero_from(&self, from: u64, len: u64) -> io::Result<bool> {
        let mut piece = vec![0; 64 << 10];
        let mut at = from;
        while at < len {
            let count = piece.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
            self.read(at, &mut piece[..count])?;
            if piece[..count].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += count as u64;
        }
        Ok(true)
    }
}

impl StorageBackend for SharedBackend {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
