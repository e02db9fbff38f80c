//! Ordinals: dense numbers of the documents of a collection.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use store::{DocId, Seq};

/// Documents of a collection by ordinal, and ordinals by document.
///
/// Ordinals of deleted documents are reused. A caller that looks up an ordinal from an earlier search passes the last
/// change which that search includes, and does not get a document that received the ordinal later.
#[derive(Debug, Default)]
pub(crate) struct Ordinals {
    entries: Vec<Entry>,
    by_doc: BTreeMap<DocId, u32>,
    free: Vec<u32>,
    live: RoaringBitmap,
    /// Expiry and ordinal of every document that expires, earliest first.
    expiries: BTreeSet<(u64, u32)>,
}

/// The document of an ordinal, or the last one if the ordinal is free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) doc: DocId,
    /// The change that assigned the ordinal to the document.
    pub(crate) since: Seq,
    pub(crate) expires_at_ms: Option<u64>,
}

/// The entry of an ordinal that is not assigned to a document.
const VACANT: Entry = Entry { doc: DocId(0), since: 0, expires_at_ms: None };

impl Ordinals {
    /// The ordinal of `doc`, newly assigned if it has none. Records its expiry.
    pub(crate) fn assign(&mut self, doc: DocId, seq: Seq, expires_at_ms: Option<u64>) -> u32 {
        let ordinal = match self.by_doc.get(&doc) {
            Some(ordinal) => *ordinal,
            None => {
                let ordinal = self.allocate();
                self.entries[ordinal as usize] = Entry { doc, since: seq, expires_at_ms: None };
                self.by_doc.insert(doc, ordinal);
                self.live.insert(ordinal);
                ordinal
            }
        };
        self.set_expiry(ordinal, expires_at_ms);
        ordinal
    }

    /// Allocates an ordinal without assigning it to a document. It serves as the label of a passage.
    pub(crate) fn allocate(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.entries.push(VACANT);
            self.len() - 1
        })
    }

    /// Frees an ordinal from [`Ordinals::allocate`].
    pub(crate) fn free(&mut self, ordinal: u32) {
        self.free.push(ordinal);
    }

    /// Assigns a free ordinal to a document without one, while a snapshot is loaded.
    pub(crate) fn restore(&mut self, ordinal: u32, entry: Entry) {
        let at = ordinal as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, VACANT);
        }
        self.by_doc.insert(entry.doc, ordinal);
        self.live.insert(ordinal);
        self.entries[at] = Entry { expires_at_ms: None, ..entry };
        self.set_expiry(ordinal, entry.expires_at_ms);
    }

    /// Makes all other numbers below `len` free, except those that `is_taken`. Call it after the last
    /// [`Ordinals::restore`].
    pub(crate) fn restore_free(&mut self, len: u32, is_taken: impl Fn(u32) -> bool) {
        self.entries.resize((len as usize).max(self.entries.len()), VACANT);
        let is_free = |number: &u32| !self.live.contains(*number) && !is_taken(*number);
        self.free = (0..self.len()).rev().filter(is_free).collect();
    }

    fn set_expiry(&mut self, ordinal: u32, expires_at_ms: Option<u64>) {
        let entry = &mut self.entries[ordinal as usize];
        if entry.expires_at_ms == expires_at_ms {
            return;
        }
        if let Some(old) = std::mem::replace(&mut entry.expires_at_ms, expires_at_ms) {
            self.expiries.remove(&(old, ordinal));
        }
        self.expiries.extend(expires_at_ms.map(|at_ms| (at_ms, ordinal)));
    }

    /// Frees the ordinal of `doc`, if it has one.
    pub(crate) fn release(&mut self, doc: DocId) -> Option<u32> {
        let ordinal = self.by_doc.remove(&doc)?;
        self.set_expiry(ordinal, None);
        self.live.remove(ordinal);
        self.free.push(ordinal);
        Some(ordinal)
    }

    pub(crate) fn ordinal(&self, doc: DocId) -> Option<u32> {
        self.by_doc.get(&doc).copied()
    }

    /// The current entry of `ordinal`.
    pub(crate) fn entry(&self, ordinal: u32) -> Option<Entry> {
        self.live.contains(ordinal).then(|| self.entries[ordinal as usize])
    }

    /// The document that had `ordinal` at the change `seen`, if it still has it.
    pub(crate) fn doc(&self, ordinal: u32, seen: Seq) -> Option<DocId> {
        self.entry(ordinal).filter(|entry| entry.since <= seen).map(|entry| entry.doc)
    }

    /// Documents after `after` in ascending order, with their ordinals.
    pub(crate) fn docs_after(&self, after: Option<DocId>) -> impl Iterator<Item = (DocId, u32)> {
        let from = match after {
            None => std::ops::Bound::Unbounded,
            Some(after) => std::ops::Bound::Excluded(after),
        };
        self.by_doc.range((from, std::ops::Bound::Unbounded)).map(|(doc, ordinal)| (*doc, *ordinal))
    }

    /// Ordinals of documents.
    pub(crate) fn live(&self) -> &RoaringBitmap {
        &self.live
    }

    /// Number of ordinals ever assigned.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("a collection holds fewer than 2^32 documents")
    }

    /// The earliest expiry.
    pub(crate) fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(at_ms, _)| *at_ms)
    }

    /// Up to `limit` documents that expired by `now_ms`, earliest first.
    pub(crate) fn expired(&self, now_ms: u64, limit: usize) -> Vec<DocId> {
        let due = self.expiries.range(..=(now_ms, u32::MAX)).take(limit);
        due.map(|(_, ordinal)| self.entries[*ordinal as usize].doc).collect()
    }

    /// Approximate bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        // A BTreeMap's leaves are about three quarters full.
        self.entries.len() * size_of::<Entry>()
            + self.by_doc.len() * 22
            + self.expiries.len() * 22
            + self.free.len() * 4
            + self.live.serialized_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_ordinal_is_not_mistaken_for_its_earlier_document() {
        let mut ordinals = Ordinals::default();
        let (a, b) = (DocId(1), DocId(2));
        let ordinal = ordinals.assign(a, 10, None);
        assert_eq!(ordinals.doc(ordinal, 10), Some(a));
        assert_eq!(ordinals.release(a), Some(ordinal));
        assert_eq!(ordinals.doc(ordinal, 11), None);
        assert_eq!(ordinals.assign(b, 12, None), ordinal);
        assert_eq!(ordinals.doc(ordinal, 11), None);
        assert_eq!(ordinals.doc(ordinal, 12), Some(b));
        // An update keeps the ordinal and its first change.
        assert_eq!(ordinals.assign(b, 15, None), ordinal);
        assert_eq!(ordinals.doc(ordinal, 12), Some(b));
    }

    #[test]
    fn expiries_follow_their_documents() {
        let mut ordinals = Ordinals::default();
        for (doc, expires_at_ms) in [(1, Some(30)), (2, None), (3, Some(10)), (4, Some(20))] {
            ordinals.assign(DocId(doc), doc, expires_at_ms);
        }
        assert_eq!(ordinals.next_expiry_ms(), Some(10));
        ordinals.assign(DocId(3), 5, None);
        ordinals.assign(DocId(2), 6, Some(25));
        ordinals.release(DocId(4));
        assert_eq!(ordinals.expired(30, 9), [DocId(2), DocId(1)]);
        assert_eq!(ordinals.expired(29, 9), [DocId(2)]);
        assert_eq!(ordinals.expired(30, 1), [DocId(2)]);
        ordinals.release(DocId(2));
        ordinals.release(DocId(1));
        assert_eq!(ordinals.next_expiry_ms(), None);
    }
}
