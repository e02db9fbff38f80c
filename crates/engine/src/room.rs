//! Room for answers: documents are bounded in number and each in bytes, but not all of an answer's together.

use std::sync::atomic::{AtomicUsize, Ordering};

use store::Document;

use crate::QueryError;

/// Bytes that the documents of one answer may have, and those of several that are given together: whoever
/// finds them takes room for each as it is read.
#[derive(Debug)]
pub struct Room {
    bytes: usize,
    left: AtomicUsize,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Room {
        Room { bytes, left: AtomicUsize::new(bytes) }
    }

    /// What has been taken so far, which is nothing.
    pub fn begin(&self) -> Taken<'_> {
        Taken { room: self, bytes: 0 }
    }
}

/// Room that one search has taken. It is given back if the search comes to nothing.
#[derive(Debug)]
pub struct Taken<'r> {
    room: &'r Room,
    bytes: usize,
}

impl Taken<'_> {
    /// Takes room for a document.
    pub fn take(&mut self, document: &Document) -> Result<(), QueryError> {
        let bytes = size(document);
        let take = |left: usize| left.checked_sub(bytes);
        match self.room.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(QueryError::AnswerSize { max: self.room.bytes }),
        }
    }

    /// Keeps what was taken.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.room.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of a document: its key and the names and values of its fields.
pub(crate) fn size(document: &Document) -> usize {
    let fields = document.fields.iter().map(|field| field.name.len() + field.value.len());
    document.key.len() + fields.sum::<usize>()
}
