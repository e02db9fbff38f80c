//! Asking for rows before they are needed.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Rows asked for ahead of the one being scored.
const ROWS_AHEAD: usize = 4;
const LINE: usize = 64;

/// Asks for the first `bytes` bytes of every row.
#[inline]
pub(super) fn lines(rows: &[&[u8]], bytes: usize) {
    for bytes in rows.iter().filter_map(|row| row.get(..bytes)) {
        row(bytes);
    }
}

/// Asks for every cache line of `row`.
#[inline]
pub(super) fn row<T>(row: &[T]) {
    let start = row.as_ptr().cast::<i8>();
    for at in (0..size_of_val(row)).step_by(LINE) {
        // SAFETY: prefetching is a hint; it reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at)) };
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
