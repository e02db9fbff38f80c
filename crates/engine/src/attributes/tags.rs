//! Postings of one TAG field.

use std::{borrow::Cow, collections::HashMap};

use roaring::{MultiOps, RoaringBitmap};

/// Ordinals by tag, and tags by ordinal.
#[derive(Debug, Default)]
pub(crate) struct TagIndex {
    /// Id of each tag in use.
    ids: HashMap<Box<[u8]>, u32>,
    /// Tag and ordinals by id. The ids of empty postings are in `free`.
    postings: Vec<Posting>,
    free: Vec<u32>,
    /// Ids of the tags of each ordinal.
    ids_by_ordinal: Vec<Box<[u32]>>,
    /// Number of ids in `ids_by_ordinal`.
    ids_count: usize,
    /// Sum of the postings' sizes. They are counted as they change, since the memory in use is checked at every commit.
    posting_bytes: usize,
}

#[derive(Debug, Default)]
struct Posting {
    tag: Box<[u8]>,
    ordinals: RoaringBitmap,
}

impl TagIndex {
    /// Sets the tags of `ordinal`, replacing any it had.
    pub(crate) fn set(&mut self, ordinal: u32, tags: &[Box<[u8]>]) {
        let at = ordinal as usize;
        if at >= self.ids_by_ordinal.len() {
            if tags.is_empty() {
                return;
            }
            self.ids_by_ordinal.resize_with(at + 1, Box::default);
        }
        // The new tags first, so that a tag the document keeps also keeps its id.
        let ids: Box<[u32]> = tags.iter().map(|tag| self.insert(tag, ordinal)).collect();
        self.ids_count += ids.len();
        self.ids_count -= self.ids_by_ordinal[at].len();
        for id in std::mem::replace(&mut self.ids_by_ordinal[at], ids) {
            if !self.ids_by_ordinal[at].contains(&id) {
                self.remove(id, ordinal);
            }
        }
    }

    fn insert(&mut self, tag: &[u8], ordinal: u32) -> u32 {
        let id = match self.ids.get(tag) {
            Some(id) => *id,
            None => {
                let id = self.free.pop().unwrap_or_else(|| {
                    self.postings.push(Posting::default());
                    u32::try_from(self.postings.len() - 1).expect("fewer than 2^32 tags")
                });
                let posting = &mut self.postings[id as usize];
                posting.tag = tag.into();
                self.posting_bytes += posting.bytes();
                self.ids.insert(tag.into(), id);
                id
            }
        };
        self.change(id, |ordinals| ordinals.insert(ordinal));
        id
    }

    fn remove(&mut self, id: u32, ordinal: u32) {
        self.change(id, |ordinals| ordinals.remove(ordinal));
        let posting = &mut self.postings[id as usize];
        if posting.ordinals.is_empty() {
            let posting = std::mem::take(posting);
            self.posting_bytes -= posting.bytes();
            self.ids.remove(&posting.tag);
            self.free.push(id);
        }
    }

    fn change(&mut self, id: u32, change: impl FnOnce(&mut RoaringBitmap) -> bool) {
        let posting = &mut self.postings[id as usize];
        self.posting_bytes -= posting.bytes();
        change(&mut posting.ordinals);
        self.posting_bytes += posting.bytes();
    }

    /// Tags of `ordinal`.
    pub(crate) fn get(&self, ordinal: u32) -> Vec<Box<[u8]>> {
        let ids = self.ids_by_ordinal.get(ordinal as usize).map_or(&[][..], |ids| &**ids);
        ids.iter().map(|id| self.postings[*id as usize].tag.clone()).collect()
    }

    /// Ordinals with at least one of `tags`.
    pub(crate) fn any_of<'a>(&self, tags: impl Iterator<Item = Cow<'a, [u8]>>) -> RoaringBitmap {
        tags.filter_map(|tag| {
            let id = *self.ids.get(&*tag)?;
            Some(&self.postings[id as usize].ordinals)
        })
        .union()
    }

    /// Approximate bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.posting_bytes + 16 * self.ids_by_ordinal.len() + 4 * self.ids_count
    }
}

impl Posting {
    /// Approximate bytes held, with the tag's entry in `ids`.
    fn bytes(&self) -> usize {
        2 * self.tag.len() + self.ordinals.serialized_size() + 64
    }
}

/// The tags in a document's value: split at `separator`, trimmed, case-folded, sorted, distinct and not empty.
pub(crate) fn split(value: &[u8], separator: u8, case_sensitive: bool) -> Vec<Box<[u8]>> {
    let mut tags: Vec<Box<[u8]>> = value
        .split(|byte| *byte == separator)
        .map(<[u8]>::trim_ascii)
        .filter(|tag| !tag.is_empty())
        .map(|tag| fold(tag, case_sensitive).into())
        .collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// Normalizes a tag for comparison: to lower case, unless it is case-sensitive. In bytes that are not UTF-8, only
/// ASCII letters are changed.
pub(crate) fn fold(tag: &[u8], case_sensitive: bool) -> Cow<'_, [u8]> {
    if case_sensitive {
        return Cow::Borrowed(tag);
    }
    match std::str::from_utf8(tag) {
        Ok(text) if !text.is_ascii() => Cow::Owned(text.to_lowercase().into_bytes()),
        _ => Cow::Owned(tag.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(words: &[&str]) -> Vec<Box<[u8]>> {
        words.iter().map(|word| word.as_bytes().into()).collect()
    }

    #[test]
    fn tag_values_are_split_trimmed_and_folded() {
        assert_eq!(split(b"Billing, security ,,  ,billing", b',', false), tags(&["billing", "security"]));
        assert_eq!(split(b"A;a;B c", b';', true), tags(&["A", "B c", "a"]));
        assert_eq!(split("ÄRGER,ärger".as_bytes(), b',', false), tags(&["ärger"]));
        assert_eq!(split(b"\xffA", b',', false), vec![Box::from(&b"\xffa"[..])]);
        assert_eq!(split(b" , ", b',', false), tags(&[]));
    }

    #[test]
    fn ids_of_unused_tags_are_reused() {
        let mut index = TagIndex::default();
        for round in 0..100 {
            index.set(7, &tags(&["constant", &format!("round {round}")]));
        }
        assert_eq!(index.get(7), tags(&["constant", "round 99"]));
        assert!(index.postings.len() <= 3, "{} postings", index.postings.len());
        assert_eq!(index.ids_count, 2);
        assert_eq!(
            index.posting_bytes,
            index.postings.iter().filter(|posting| !posting.tag.is_empty()).map(Posting::bytes).sum()
        );
        index.set(7, &[]);
        assert_eq!((index.ids.len(), index.ids_count, index.posting_bytes), (0, 0, 0));
        assert!(index.any_of([Cow::Borrowed(&b"constant"[..])].into_iter()).is_empty());
    }
}
