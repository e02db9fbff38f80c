//! Damaging pages in the bytes of a store.

use std::ops::Range;

/// Size of a redb page.
const PAGE_BYTES: usize = 4096;
/// The first byte of a page that contains rows.
const LEAF: u8 = 1;
/// Where a page stores its row count.
const ROW_COUNT_AT: Range<usize> = 2..4;

/// Flips a bit at each occurrence of `needle`.
pub(crate) fn flip_each(bytes: &mut [u8], needle: &[u8]) {
    let positions: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!positions.is_empty());
    positions.into_iter().for_each(|at| bytes[at] ^= 1);
}

/// Offsets of the pages whose rows contain `needle`: the current page and older copies of it.
pub(crate) fn leaves(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    let positions = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle));
    // A page can be several times the basic page size.
    let mut leaves: Vec<usize> = positions
        .filter_map(|at| (0..=at / PAGE_BYTES).rev().find(|page| bytes[page * PAGE_BYTES] == LEAF))
        .map(|page| page * PAGE_BYTES)
        .collect();
    leaves.dedup();
    assert!(!leaves.is_empty());
    leaves
}

/// Sets the row count to zero in the pages whose rows contain `needle`. For a count of 1, 2, 4 or 8 a single
/// flipped bit has this effect.
pub(crate) fn empty_leaves(bytes: &mut [u8], needle: &[u8]) {
    for leaf in leaves(bytes, needle) {
        bytes[leaf..][ROW_COUNT_AT].fill(0);
    }
}

/// Invalidates the pages whose rows contain `needle`, by flipping one bit of the page type.
pub(crate) fn break_leaves(bytes: &mut [u8], needle: &[u8]) {
    leaves(bytes, needle).into_iter().for_each(|leaf| bytes[leaf] ^= 0x40);
}

/// Overwrites the pages whose rows contain `to` with a page whose rows contain `from`.
pub(crate) fn overlay_leaves(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let from = leaves(bytes, from)[0];
    for to in leaves(bytes, to) {
        assert_ne!(from, to);
        bytes.copy_within(from..from + PAGE_BYTES, to);
    }
}
