//! Labels of the passages other than 0.
//!
//! An index identifies its vectors by label. The label of a document's passage 0 is the document's ordinal, so that a
//! collection whose documents have one vector per field needs no table to find the document of a label. The labels of
//! further passages are allocated from the ordinals, and this table maps them to documents.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;
use store::Seq;

use crate::ordinals::Ordinals;

/// The further passages of a collection: those with a number other than 0.
#[derive(Debug, Default)]
pub(crate) struct Passages {
    labels: BTreeMap<PassageKey, u32>,
    entries: HashMap<u32, PassageEntry>,
}

/// Identifies a passage within a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PassageKey {
    /// Slot of its VECTOR field.
    pub(crate) slot: usize,
    /// Ordinal of its document.
    pub(crate) ordinal: u32,
    /// Passage number, at least 1.
    pub(crate) passage: u16,
}

/// The passage of a label.
#[derive(Clone, Copy, Debug)]
struct PassageEntry {
    key: PassageKey,
    /// The change that assigned the label to the passage.
    since: Seq,
}

impl Passages {
    /// Gives a passage the label and the change that it had when a snapshot was written. Returns the label that the
    /// passage had before, which is now unused.
    pub(crate) fn restore(&mut self, label: u32, key: PassageKey, since: Seq) -> Option<u32> {
        let earlier = self.labels.insert(key, label);
        if let Some(earlier) = earlier {
            self.entries.remove(&earlier);
        }
        self.entries.insert(label, PassageEntry { key, since });
        earlier
    }

    /// Removes the passages of documents that are not among `live`, after a snapshot was loaded.
    pub(crate) fn retain_documents(&mut self, live: &RoaringBitmap) {
        self.labels.retain(|key, _| live.contains(key.ordinal));
        self.entries.retain(|_, entry| live.contains(entry.key.ordinal));
    }

    /// The passage that has a label, and the change with which it got the label.
    pub(crate) fn get(&self, label: u32) -> Option<(PassageKey, Seq)> {
        self.entries.get(&label).map(|entry| (entry.key, entry.since))
    }

    /// The label of a passage, if it has one.
    pub(crate) fn label(&self, key: PassageKey) -> Option<u32> {
        self.labels.get(&key).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The label of a passage. Allocates one if the passage has none.
    pub(crate) fn assign(&mut self, key: PassageKey, seq: Seq, ordinals: &mut Ordinals) -> u32 {
        *self.labels.entry(key).or_insert_with(|| {
            let label = ordinals.allocate();
            self.entries.insert(label, PassageEntry { key, since: seq });
            label
        })
    }

    /// A document's passages in one field and their labels, in ascending order of passages.
    pub(crate) fn of_document(&self, slot: usize, ordinal: u32) -> impl Iterator<Item = (PassageKey, u32)> {
        let first = PassageKey { slot, ordinal, passage: 0 };
        let last = PassageKey { passage: u16::MAX, ..first };
        self.labels.range(first..=last).map(|(key, label)| (*key, *label))
    }

    /// Frees the label of a passage, whose vector must already have been removed from the index.
    pub(crate) fn release(&mut self, key: PassageKey, ordinals: &mut Ordinals) {
        if let Some(label) = self.labels.remove(&key) {
            self.entries.remove(&label);
            ordinals.free(label);
        }
    }

    /// The passage of a label that was found by a search which includes changes up to `seen`.
    pub(crate) fn entry(&self, label: u32, seen: Seq) -> Option<PassageKey> {
        self.entries.get(&label).filter(|entry| entry.since <= seen).map(|entry| entry.key)
    }

    /// Whether any document has further passages in this field.
    pub(crate) fn has_slot(&self, slot: usize) -> bool {
        self.of_slot(slot).next().is_some()
    }

    /// Adds the labels of the documents' further passages in one field to a set of their ordinals.
    pub(crate) fn add_labels(&self, ordinals: &mut RoaringBitmap, slot: usize) {
        // Labels of passages are never ordinals of documents, so an added label does not match `key.ordinal`.
        for (key, label) in self.of_slot(slot) {
            if ordinals.contains(key.ordinal) {
                ordinals.insert(label);
            }
        }
    }

    fn of_slot(&self, slot: usize) -> impl Iterator<Item = (PassageKey, u32)> {
        let first = PassageKey { slot, ordinal: 0, passage: 0 };
        let last = PassageKey { slot, ordinal: u32::MAX, passage: u16::MAX };
        self.labels.range(first..=last).map(|(key, label)| (*key, *label))
    }

    /// Approximate bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let per_entry = size_of::<PassageEntry>() + size_of::<PassageKey>() + 2 * size_of::<u32>();
        // Neither a HashMap nor a BTreeMap's leaves are full; three quarters are usual.
        self.entries.len() * per_entry * 4 / 3
    }
}
