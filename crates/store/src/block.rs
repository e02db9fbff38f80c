//! Consecutive vectors of one field, packed into one row.
//!
//! redb rounds a row that does not fit into a 4 KiB page up to the next power of two, and a page
//! holds only whole rows. Storing one vector per row would waste a quarter of the file at 1,536
//! bytes per vector and half of it at 4,096. Blocks of just under 16 KiB avoid this.
//!
//! ```text
//! entries, ascending: doc u64 | passage u16 | length of elements u32 | model 16 bytes | elements
//! CRC-32 over the row's key and all of the above, u32
//! ```
//!
//! The length is in the lower 24 bits of its `u32`. The upper eight are reserved for what an entry may contain in
//! addition, such as the position of a passage in its text; see [`crate::state`] on features.
//!
//! Numbers are little-endian. The row's key is a lower bound for the keys of its entries, and is
//! greater than every key in the preceding row.

use crate::checksum::{append_checksum, strip_checksum};
use crate::cursor::{Cursor, tagged_len};
use crate::limits::VECTOR_BYTES_MAX;
use crate::vector_key::VECTOR_KEY_BYTES;
use crate::{DocId, StoredVector};

/// Maximum length of a block with more than one entry. With redb's overhead it fills 16 KiB.
pub(crate) const BLOCK_BYTES_MAX: usize = (16 << 10) - 64;

const ENTRY_HEAD_BYTES: usize = 8 + 2 + 4 + 16;
const CHECKSUM_BYTES: usize = 4;
/// Bits of the length of a vector's elements.
const LEN_BITS: u32 = 24;
const _: () = assert!(VECTOR_BYTES_MAX < 1 << LEN_BITS);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'b> {
    pub(crate) doc: DocId,
    pub(crate) passage: u16,
    pub(crate) model: [u8; 16],
    pub(crate) elements: &'b [u8],
}

impl Entry<'_> {
    fn position(&self) -> (DocId, u16) {
        (self.doc, self.passage)
    }

    pub(crate) fn vector(&self) -> StoredVector {
        StoredVector { model: self.model, bytes: self.elements.into() }
    }
}

/// Entries in ascending order of document and passage, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block<'b> {
    entries: Vec<Entry<'b>>,
}

impl<'b> Block<'b> {
    pub(crate) fn decode(row_key: &[u8; VECTOR_KEY_BYTES], row: &'b [u8]) -> Result<Block<'b>, &'static str> {
        let mut cursor = Cursor(strip_checksum(row_key, row)?);
        let mut entries: Vec<Entry<'_>> = Vec::new();
        while !cursor.0.is_empty() {
            let doc = DocId(cursor.u64()?);
            let passage = cursor.u16()?;
            let (extension, len) = tagged_len(cursor.u32()?, LEN_BITS);
            if extension != 0 {
                return Err("unknown extension of a vector");
            }
            let model = cursor.array()?;
            let entry = Entry { doc, passage, model, elements: cursor.slice(len)? };
            if entries.last().is_some_and(|last| last.position() >= entry.position()) {
                return Err("vectors are out of order");
            }
            entries.push(entry);
        }
        Ok(Block { entries })
    }

    pub(crate) fn encode(&self, row_key: &[u8; VECTOR_KEY_BYTES]) -> Vec<u8> {
        let mut row = Vec::with_capacity(self.bytes());
        for entry in &self.entries {
            let len = u32::try_from(entry.elements.len()).expect("a vector is at most VECTOR_BYTES_MAX long");
            row.extend_from_slice(&entry.doc.0.to_le_bytes());
            row.extend_from_slice(&entry.passage.to_le_bytes());
            row.extend_from_slice(&len.to_le_bytes());
            row.extend_from_slice(&entry.model);
            row.extend_from_slice(entry.elements);
        }
        append_checksum(row_key, &mut row);
        row
    }

    fn bytes(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| ENTRY_HEAD_BYTES + entry.elements.len()).sum();
        entries + CHECKSUM_BYTES
    }

    pub(crate) fn entries(&self) -> &[Entry<'b>] {
        &self.entries
    }

    pub(crate) fn get(&self, doc: DocId, passage: u16) -> Option<&Entry<'b>> {
        let at = self.entries.binary_search_by_key(&(doc, passage), Entry::position).ok()?;
        Some(&self.entries[at])
    }

    /// Inserts an entry, or replaces the entry with the same position. If the block becomes too
    /// long, splits it and returns the upper part. The upper part is the new entry alone if that is
    /// the last one, so that sequential writes leave full blocks; otherwise it is half of the block.
    pub(crate) fn set(&mut self, entry: Entry<'b>) -> Option<Block<'b>> {
        let at = match self.entries.binary_search_by_key(&entry.position(), Entry::position) {
            Ok(at) => {
                self.entries[at] = entry;
                at
            }
            Err(at) => {
                self.entries.insert(at, entry);
                at
            }
        };
        let count = self.entries.len();
        if self.bytes() <= BLOCK_BYTES_MAX || count == 1 {
            return None;
        }
        let upper = if at + 1 == count { at } else { count / 2 };
        Some(Block { entries: self.entries.split_off(upper) })
    }

    /// Removes the entries of a document. Returns `false` if there were none.
    pub(crate) fn remove(&mut self, doc: DocId) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.doc != doc);
        self.entries.len() < before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const ROW_KEY: [u8; VECTOR_KEY_BYTES] = [3; VECTOR_KEY_BYTES];

    fn config() -> ProptestConfig {
        ProptestConfig {
            rng_seed: RngSeed::Fixed(9_302),
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    fn entry(doc: u64, passage: u16, elements: &[u8]) -> Entry<'_> {
        Entry { doc: DocId(doc), passage, model: [doc as u8; 16], elements }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn returns_what_was_set_and_splits_in_order(
            sets in prop::collection::vec((0..20u64, 0..3u16, 0..5_000usize), 0..40),
            removed in 0..20u64,
        ) {
            let zeros = [0; 5_000];
            let (mut block, mut model) = (Block::default(), BTreeMap::new());
            for (doc, passage, len) in sets {
                let upper = block.set(entry(doc, passage, &zeros[..len]));
                model.insert((doc, passage), len);
                prop_assert!(upper.is_some() || block.entries().len() == 1 || block.bytes() <= BLOCK_BYTES_MAX);
                if let Some(upper) = upper {
                    let split_at = upper.entries()[0].position();
                    prop_assert!(block.entries().iter().all(|entry| entry.position() < split_at));
                    let upper_model = model.split_off(&(split_at.0.0, split_at.1));
                    prop_assert_eq!(upper.entries().len(), upper_model.len());
                }
            }
            block.remove(DocId(removed));
            model.retain(|(doc, _), _| *doc != removed);
            let row = block.encode(&ROW_KEY);
            prop_assert_eq!(row.len(), block.bytes());
            let read = Block::decode(&ROW_KEY, &row).unwrap();
            prop_assert_eq!(&read, &block);
            let found: BTreeMap<_, _> =
                read.entries().iter().map(|entry| ((entry.doc.0, entry.passage), entry.elements.len())).collect();
            prop_assert_eq!(found, model);
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_a_block(mut bytes in prop::collection::vec(any::<u8>(), 0..200), with_checksum in any::<bool>()) {
            if with_checksum {
                append_checksum(&ROW_KEY, &mut bytes);
            }
            if let Ok(block) = Block::decode(&ROW_KEY, &bytes) {
                prop_assert_eq!(block.encode(&ROW_KEY), bytes);
            }
        }

        #[test]
        fn detects_every_flipped_bit(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut block = Block::default();
            block.set(entry(5, 0, b"elements"));
            block.set(entry(5, 1, b"more"));
            let mut row = block.encode(&ROW_KEY);
            let at = at.index(row.len());
            row[at] ^= 1 << bit;
            prop_assert!(Block::decode(&ROW_KEY, &row).is_err());
        }
    }

    #[test]
    fn sequential_writes_leave_full_blocks() {
        let elements = [0; 1_536];
        let mut block = Block::default();
        let overflow = (0..).find_map(|doc| block.set(entry(doc, 0, &elements)));
        assert_eq!(overflow.unwrap().entries().len(), 1);
        assert_eq!(block.entries().len(), 10);
    }
}
