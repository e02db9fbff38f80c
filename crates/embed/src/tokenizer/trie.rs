//! A trie of the pieces of a vocabulary.

use std::{collections::VecDeque, ops::Range};

/// A node: a prefix that some pieces share.
pub(super) type Node = u32;

/// The id of a node at which no piece ends.
const NONE: u32 = u32::MAX;

/// A byte trie in level order. The children of a node are adjacent and sorted by label. It uses nine
/// bytes per node, so that the 30,000 pieces of BERT's English vocabulary fit into the cache.
pub(super) struct Trie {
    /// The byte that leads to each node.
    labels: Vec<u8>,
    /// Index of each node's first child. Its children end where those of the next node start.
    children: Vec<Node>,
    /// Id of the piece that ends at each node, or [`NONE`].
    ids: Vec<u32>,
}

impl Trie {
    /// The root node.
    pub(super) const ROOT: Node = 0;

    pub(super) fn new(pieces: impl IntoIterator<Item = (String, u32)>) -> Trie {
        let mut pieces: Vec<(String, u32)> = pieces.into_iter().collect();
        pieces.sort_unstable();
        let mut trie = Trie { labels: vec![0], children: Vec::new(), ids: Vec::new() };
        // For each pending node the range of its pieces and its depth in bytes.
        let mut pending: VecDeque<(Range<usize>, usize)> = [(0..pieces.len(), 0)].into();
        while let Some((mut range, depth)) = pending.pop_front() {
            let ends_here = !range.is_empty() && pieces[range.start].0.len() == depth;
            trie.ids.push(if ends_here { pieces[range.start].1 } else { NONE });
            range.start += usize::from(ends_here);
            trie.children
                .push(u32::try_from(trie.labels.len()).expect("a vocabulary has fewer than 2^32 bytes"));
            while !range.is_empty() {
                let label = pieces[range.start].0.as_bytes()[depth];
                let same =
                    pieces[range.clone()].partition_point(|(piece, _)| piece.as_bytes()[depth] <= label);
                trie.labels.push(label);
                pending.push_back((range.start..range.start + same, depth + 1));
                range.start += same;
            }
        }
        trie.children.push(u32::try_from(trie.labels.len()).expect("a vocabulary has fewer than 2^32 bytes"));
        trie
    }

    /// The child of `node` with the label `label`.
    pub(super) fn child(&self, node: Node, label: u8) -> Option<Node> {
        let (first, end) = (self.children[node as usize], self.children[node as usize + 1]);
        let labels = &self.labels[first as usize..end as usize];
        labels.binary_search(&label).ok().map(|index| first + index as u32)
    }

    /// The node reached from the root by `bytes`.
    pub(super) fn descend(&self, bytes: &[u8]) -> Option<Node> {
        bytes.iter().try_fold(Trie::ROOT, |node, &byte| self.child(node, byte))
    }

    /// The longest piece that is a prefix of `bytes`, starting at `node`: its length and id.
    pub(super) fn longest(&self, mut node: Node, bytes: &[u8]) -> Option<(usize, u32)> {
        let mut longest = None;
        for (index, &byte) in bytes.iter().enumerate() {
            let Some(child) = self.child(node, byte) else { break };
            node = child;
            let id = self.ids[node as usize];
            if id != NONE {
                longest = Some((index + 1, id));
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
        fn longest_prefix_matches_a_map(
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
