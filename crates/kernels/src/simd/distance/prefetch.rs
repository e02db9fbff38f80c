//! Asking for rows before they are needed.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Rows asked for ahead of the one being scored.
const ROWS_AHEAD: usize = 4;
const LINE: usize = 64;

/// Asks for every cache line of `row`.
#[inline]
fn row(row: &[u8]) {
    for line in row.chunks(LINE) {
        // SAFETY: prefetching is a hint; it reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// Asks for the first rows of a batch.
#[inline]
pub(super) fn first(rows: &[&[u8]]) {
    rows.iter().take(ROWS_AHEAD).for_each(|bytes| row(bytes));
}

/// Asks for the row that is a few places after `at`.
#[inline]
pub(super) fn after(rows: &[&[u8]], at: usize) {
    if let Some(bytes) = rows.get(at + ROWS_AHEAD) {
        row(bytes);
    }
}
