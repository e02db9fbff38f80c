//! The pieces of a vocabulary, to be found by their bytes.

use std::{collections::VecDeque, ops::Range};

/// A node: a beginning that some pieces share.
pub(super) type Node = u32;

/// Id of a node at which no piece ends.
const NONE: u32 = u32::MAX;

/// A byte trie in level order: the children of a node stand side by side, sorted by label. Nine
/// bytes a node, so that the 30,000 pieces of BERT's English vocabulary stay in the cache.
pub(super) struct Trie {
    /// The byte that leads to each node.
    labels: Vec<u8>,
    /// Where the children of each node begin; those of the next node begin where they end.
    children: Vec<Node>,
    /// The piece that ends at each node.
    ids: Vec<u32>,
}

impl Trie {
    /// Where every piece begins.
    pub(super) const ROOT: Node = 0;

    pub(super) fn new(pieces: impl IntoIterator<Item = (String, u32)>) -> Trie {
        let mut pieces: Vec<(String, u32)> = pieces.into_iter().collect();
        pieces.sort_unstable();
        let mut trie = Trie { labels: vec![0], children: Vec::new(), ids: Vec::new() };
        // Each node's pieces, and how many bytes of them lead to it.
        let mut open: VecDeque<(Range<usize>, usize)> = [(0..pieces.len(), 0)].into();
        while let Some((mut range, depth)) = open.pop_front() {
            let ends_here = !range.is_empty() && pieces[range.start].0.len() == depth;
            trie.ids.push(if ends_here { pieces[range.start].1 } else { NONE });
            range.start += usize::from(ends_here);
            trie.children.push(u32::try_from(trie.labels.len()).expect("a file holds fewer bytes"));
            while !range.is_empty() {
                let label = pieces[range.start].0.as_bytes()[depth];
                let same =
                    pieces[range.clone()].partition_point(|(piece, _)| piece.as_bytes()[depth] <= label);
                trie.labels.push(label);
                open.push_back((range.start..range.start + same, depth + 1));
                range.start += same;
            }
        }
        trie.children.push(u32::try_from(trie.labels.len()).expect("a file holds fewer bytes"));
        trie
    }

    /// The node that `label` leads to from `node`.
    pub(super) fn child(&self, node: Node, label: u8) -> Option<Node> {
        let (first, end) = (self.children[node as usize], self.children[node as usize + 1]);
        let labels = &self.labels[first as usize..end as usize];
        labels.binary_search(&label).ok().map(|place| first + place as u32)
    }

    /// The node all of `bytes` lead to from the root.
    pub(super) fn descend(&self, bytes: &[u8]) -> Option<Node> {
        bytes.iter().try_fold(Trie::ROOT, |node, &byte| self.child(node, byte))
    }

    /// The longest piece that `bytes` begin with, read from `node`: its length and id.
    pub(super) fn longest(&self, mut node: Node, bytes: &[u8]) -> Option<(usize, u32)> {
        let mut longest = None;
        for (place, &byte) in bytes.iter().enumerate() {
            let Some(child) = self.child(node, byte) else { break };
            node = child;
            let id = self.ids[node as usize];
            if id != NONE {
                longest = Some((place + 1, id));
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_map_finds(
            pieces in proptest::collection::btree_map("[ab#é]{0,6}", 0..1000u32, 0..40),
            word in "[ab#é]{0,12}",
        ) {
            let trie = Trie::new(pieces.clone());
            let longest = |from: &str, pieces: &BTreeMap<String, u32>| {
                (1..=word.len()).rev().filter(|&end| word.is_char_boundary(end)).find_map(|end| {
                    pieces.get(&format!("{from}{}", &word[..end])).map(|&id| (end, id))
                })
            };
            prop_assert_eq!(trie.longest(Trie::ROOT, word.as_bytes()), longest("", &pieces));
            let after = trie.descend(b"##").and_then(|node| trie.longest(node, word.as_bytes()));
            prop_assert_eq!(after, longest("##", &pieces));
        }
    }
}
