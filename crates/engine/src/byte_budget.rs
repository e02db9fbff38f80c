//! Byte budgets of responses: the number of documents and the size of each are limited, but not their total size.

use std::sync::atomic::{AtomicUsize, Ordering};

use store::Document;

use crate::QueryError;

/// The bytes that the documents of a response may take. Several searches can share one budget; each reserves bytes
/// for a document as it reads it.
#[derive(Debug)]
pub struct ByteBudget {
    bytes: usize,
    left: AtomicUsize,
}

impl ByteBudget {
    /// A budget of `bytes` bytes.
    pub fn new(bytes: usize) -> ByteBudget {
        ByteBudget { bytes, left: AtomicUsize::new(bytes) }
    }

    /// An empty reservation.
    pub fn reserve(&self) -> Reservation<'_> {
        Reservation { budget: self, bytes: 0 }
    }
}

/// The bytes that one search has reserved. Dropping it returns them, [`Reservation::commit`] keeps them.
#[derive(Debug)]
pub struct Reservation<'r> {
    budget: &'r ByteBudget,
    bytes: usize,
}

impl Reservation<'_> {
    /// Reserves the bytes of a document.
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

    /// Keeps the reserved bytes.
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
