//! Postings of one TAG field.

use std::{borrow::Cow, collections::HashMap};

use roaring::{MultiOps, RoaringBitmap};

/// Ordinals by tag, and tags by ordinal.
#[derive(Debug, Default)]
pub(crate) struct TagIndex {
    /// Number of each tag in use.
    numbers: HashMap<Box<[u8]>, u32>,
    /// Tag and ordinals by number. The numbers of empty postings are in `free`.
    postings: Vec<Posting>,
    free: Vec<u32>,
    /// Numbers of the tags of each ordinal.
    of_ordinal: Vec<Box<[u32]>>,
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
        if at >= self.of_ordinal.len() {
            if tags.is_empty() {
                return;
            }
            self.of_ordinal.resize_with(at + 1, Box::default);
        }
        // The new tags first, so that a tag that stays keeps its number.
        let numbers: Box<[u32]> = tags.iter().map(|tag| self.insert(tag, ordinal)).collect();
        for number in std::mem::replace(&mut self.of_ordinal[at], numbers) {
            if !self.of_ordinal[at].contains(&number) {
                self.remove(number, ordinal);
            }
        }
    }

    fn insert(&mut self, tag: &[u8], ordinal: u32) -> u32 {
        let number = match self.numbers.get(tag) {
            Some(number) => *number,
            None => {
                let number = self.free.pop().unwrap_or_else(|| {
                    self.postings.push(Posting::default());
                    u32::try_from(self.postings.len() - 1).expect("fewer than 2^32 tags")
                });
                self.postings[number as usize].tag = tag.into();
                self.numbers.insert(tag.into(), number);
                number
            }
        };
        self.postings[number as usize].ordinals.insert(ordinal);
        number
    }

    fn remove(&mut self, number: u32, ordinal: u32) {
        let posting = &mut self.postings[number as usize];
        posting.ordinals.remove(ordinal);
        if posting.ordinals.is_empty() {
            let posting = std::mem::take(posting);
            self.numbers.remove(&posting.tag);
            self.free.push(number);
        }
    }

    /// Tags of `ordinal`.
    pub(crate) fn get(&self, ordinal: u32) -> Vec<Box<[u8]>> {
        let numbers = self.of_ordinal.get(ordinal as usize).map_or(&[][..], |numbers| &**numbers);
        numbers.iter().map(|number| self.postings[*number as usize].tag.clone()).collect()
    }

    /// Ordinals with at least one of `tags`.
    pub(crate) fn any_of<'a>(&self, tags: impl Iterator<Item = Cow<'a, [u8]>>) -> RoaringBitmap {
        tags.filter_map(|tag| {
            let number = *self.numbers.get(&*tag)?;
            Some(&self.postings[number as usize].ordinals)
        })
        .union()
    }

    /// Approximate bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        let words: usize = self
            .postings
            .iter()
            .map(|posting| 2 * posting.tag.len() + posting.ordinals.serialized_size() + 64)
            .sum();
        let numbers: usize = self.of_ordinal.iter().map(|numbers| 16 + 4 * numbers.len()).sum();
        words + numbers
    }
}

/// The tags in a document's value: divided by `separator`, trimmed, case-folded, sorted, distinct and not empty.
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
    fn numbers_of_unused_tags_are_reused() {
        let mut postings = TagIndex::default();
        for round in 0..100 {
            postings.set(7, &tags(&["stays", &format!("goes {round}")]));
        }
        assert_eq!(postings.get(7), tags(&["stays", "goes 99"]));
        assert!(postings.postings.len() <= 3, "{} postings", postings.postings.len());
        postings.set(7, &[]);
        assert_eq!(postings.numbers.len(), 0);
        assert!(postings.any_of([Cow::Borrowed(&b"stays"[..])].into_iter()).is_empty());
    }
}
