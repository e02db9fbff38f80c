//! Damage to the bytes of a store.

use std::ops::Range;

/// A page of redb.
const PAGE_BYTES: usize = 4096;
/// Its first byte, if it holds rows.
const LEAF: u8 = 1;
/// And where it says how many.
const ROWS_AT: Range<usize> = 2..4;

/// Flips a bit of each place where the bytes stand.
pub(crate) fn flip_each(bytes: &mut [u8], needle: &[u8]) {
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] ^= 1);
}

/// Where the pages begin that hold rows with these bytes: the one that is read, and older copies of it.
pub(crate) fn leaves(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    let places = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(needle));
    // A long page takes the place of several.
    let mut leaves: Vec<usize> = places
        .filter_map(|at| (0..=at / PAGE_BYTES).rev().find(|page| bytes[page * PAGE_BYTES] == LEAF))
        .map(|page| page * PAGE_BYTES)
        .collect();
    leaves.dedup();
    assert!(!leaves.is_empty());
    leaves
}

/// Has the pages that hold rows with these bytes say that they hold none: one flipped bit, if they hold 1, 2, 4 or 8.
pub(crate) fn empty_leaves(bytes: &mut [u8], needle: &[u8]) {
    for leaf in leaves(bytes, needle) {
        bytes[leaf..][ROWS_AT].fill(0);
    }
}

/// Has the pages that hold rows with these bytes be no pages of redb any more: one flipped bit.
pub(crate) fn break_leaves(bytes: &mut [u8], needle: &[u8]) {
    leaves(bytes, needle).into_iter().for_each(|leaf| bytes[leaf] ^= 0x40);
}

/// Has pages be read in place of others.
pub(crate) fn overlay_leaves(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let from = leaves(bytes, from)[0];
    for to in leaves(bytes, to) {
        assert_ne!(from, to);
        bytes.copy_within(from..from + PAGE_BYTES, to);
    }
}
