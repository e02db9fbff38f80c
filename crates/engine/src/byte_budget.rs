//! Room for answers: documents are bounded in number and each in bytes, but not all of an answer's together.

use std::sync::atomic::{AtomicUsize, Ordering};

use store::Document;

use crate::QueryError;

/// Bytes that the documents of one answer may have, and those of several that are given together: whoever
/// finds them takes room for each as it is read.
#[derive(Debug)]
pub struct ByteBudget {
    bytes: usize,
    left: AtomicUsize,
}

impl ByteBudget {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> ByteBudget {
        ByteBudget { bytes, left: AtomicUsize::new(bytes) }
    }

    /// What has been taken so far, which is nothing.
    pub fn reserve(&self) -> Reservation<'_> {
        Reservation { budget: self, bytes: 0 }
    }
}

/// Room that one search has taken. It is given back if the search comes to nothing.
#[derive(Debug)]
pub struct Reservation<'r> {
    budget: &'r ByteBudget,
    bytes: usize,
}

impl Reservation<'_> {
    /// Takes room for a document.
    pub fn add(&mut self, document: &Document) -> Result<(), QueryError> {
        let bytes = document_bytes(document);
        let take = |left: usize| left.checked_sub(bytes);
        match self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(_) => Err(QueryError::ResponseSize { max: self.budget.bytes }),
        }
    }

    /// Keeps what was taken.
    pub fn commit(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of a document: its key and the names and values of its fields.
pub(crate) fn document_bytes(document: &Document) -> usize {
    let fields = document.fields.iter().map(|field| field.name.len() + field.value.len());
    document.key.len() + fields.sum::<usize>()
}
