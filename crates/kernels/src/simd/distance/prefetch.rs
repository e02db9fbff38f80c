//! Prefetching.

use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

const LINE: usize = 64;

/// Prefetches every cache line of `items` into the first-level cache.
#[inline]
pub(super) fn into_level_1<T>(items: &[T]) {
    for at in lines(items) {
        // SAFETY: prefetching is a hint; it reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
}

/// Prefetches every cache line of `items` into the second-level cache. Data that is scattered in memory arrives there
/// two to three times as fast, because the first level supports far fewer outstanding lines (measured on Zen 4).
#[inline]
pub(super) fn into_level_2<T>(items: &[T]) {
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
