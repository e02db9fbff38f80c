//! Byte budgets of responses. The number of documents and the size of each are limited separately, but their product
//! would be too large for a response.

use std::sync::atomic::{AtomicUsize, Ordering};

use store::Document;

use crate::QueryError;

/// Limits the bytes of the documents in a response. Several searches can share a budget; each reserves bytes for a
/// document when it reads it.
#[derive(Debug)]
pub struct ByteBudget {
    bytes: usize,
    available: AtomicUsize,
}

impl ByteBudget {
    /// A budget of `bytes` bytes.
    pub fn new(bytes: usize) -> ByteBudget {
        ByteBudget { bytes, available: AtomicUsize::new(bytes) }
    }

    /// An empty reservation.
    pub fn reserve(&self) -> Reservation<'_> {
        Reservation { budget: self, bytes: 0 }
    }
}

/// The bytes that one search has reserved. Dropping it returns them to the budget, unless it was committed.
#[derive(Debug)]
pub struct Reservation<'r> {
    budget: &'r ByteBudget,
    bytes: usize,
}

impl Reservation<'_> {
    /// Reserves the bytes of a document. Fails with [`QueryError::ResponseSize`] if the budget is exhausted.
    pub fn add(&mut self, document: &Document) -> Result<(), QueryError> {
        let bytes = document_bytes(document);
        let take = |available: usize| available.checked_sub(bytes);
        match self.budget.available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
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
        self.budget.available.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of a document: its key and the names and values of its fields.
pub(crate) fn document_bytes(document: &Document) -> usize {
    let fields = document.fields.iter().map(|field| field.name.len() + field.value.len());
    document.key.len() + fields.sum::<usize>()
}
