//! The disk a store lies on, shared between redb and the store.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use redb::{BackendError, StorageBackend};

/// Passes everything on. redb takes its disk away for good; the store still asks for its length.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<dyn StorageBackend>);

/// How redb's files begin.
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// redb writes its header, and while creating a file nothing else, in the first page.
const HEADER_PAGE_BYTES: u64 = 4096;

/// What a disk holds before redb has looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing: a store may be made here.
    Empty,
    /// A file whose creation was cut off: it never held a commit.
    Unfinished,
    /// A redb file, by its first bytes.
    Redb,
    /// Something else.
    Foreign,
}

impl Disk {
    pub(crate) fn new(backend: impl StorageBackend) -> Disk {
        Disk(Arc::new(backend))
    }

    pub(crate) fn content(&self) -> io::Result<Content> {
        let len = self.len()?;
        if len == 0 {
            return Ok(Content::Empty);
        }
        let mut head = vec![0; MAGIC.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        self.read(0, &mut head)?;
        if head == MAGIC {
            return Ok(Content::Redb);
        }
        // redb makes the file long, writes and syncs the header without its first bytes, and
        // only then those. Of a creation that was cut off there is a header at most.
        if head.iter().all(|byte| *byte == 0) && self.is_zero_from(HEADER_PAGE_BYTES, len)? {
            return Ok(Content::Unfinished);
        }
        Ok(Content::Foreign)
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

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
