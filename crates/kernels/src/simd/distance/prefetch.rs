//! Asking for memory before it is needed.

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

const LINE: usize = 64;

/// Asks for every cache line of `items`, into the first level.
#[inline]
pub(super) fn nearest<T>(items: &[T]) {
    for at in lines(items) {
        // SAFETY: prefetching is a hint; it reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
}

/// Asks for every cache line of `items`, into the second level: what is scattered in memory comes
/// there two to three times as fast, for the first level waits for far fewer lines at a time
/// (measured on Zen 4).
#[inline]
pub(super) fn near<T>(items: &[T]) {
    for at in lines(items) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at) };
    }
}

#[inline]
fn lines<T>(items: &[T]) -> impl Iterator<Item = *const i8> {
    let start = items.as_ptr().cast::<i8>();
    (0..size_of_val(items)).step_by(LINE).map(move |at| start.wrapping_add(at))
}
