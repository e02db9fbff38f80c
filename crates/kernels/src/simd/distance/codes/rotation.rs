//! A rotation that distributes a few large values over all dimensions, so that they do not dominate the range of the
//! codes.
//!
//! On a block whose size n is a power of two, the rotation is `H · D · H / n` with the Hadamard matrix `H` and
//! pseudo-random signs `D`, the first of which is positive. It is its own inverse, and maps a vector of equal values to
//! itself, so a common offset, which codes store separately, stays an offset. A dimension that is not a power of two is
//! covered by two overlapping blocks, one after the other.

use crate::simd::{Cpu, Level};

const LANES: usize = 8;

/// Rotates `values`. The inner product of two rotated vectors is that of the original ones.
pub fn rotate(cpu: Cpu, values: &mut [f32]) {
    let [first, last] = blocks(values.len());
    apply(cpu, values, [first, last]);
}

/// The inverse of [`rotate`].
pub fn unrotate(cpu: Cpu, values: &mut [f32]) {
    let [first, last] = blocks(values.len());
    apply(cpu, values, [last, first]);
}

/// The two blocks; the second is empty if one covers all values.
fn blocks(dim: usize) -> [std::ops::Range<usize>; 2] {
    let block = if dim == 0 { 0 } else { 1 << dim.ilog2() };
    let rest = if block == dim { dim } else { dim - block };
    [0..block, rest..dim]
}

fn apply(cpu: Cpu, values: &mut [f32], blocks: [std::ops::Range<usize>; 2]) {
    for block in blocks {
        let start = block.start as u32;
        let block = &mut values[block];
        match cpu.level() {
            // SAFETY: a `Cpu` of this level exists only if detection found its instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx2 => unsafe { avx2(block, start) },
            _ => plain(block, start),
        }
    }
}

/// The same sums in the same order, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(block: &mut [f32], start: u32) {
    plain(block, start);
}

#[inline(always)]
fn plain(block: &mut [f32], start: u32) {
    if block.len() < 2 {
        return;
    }
    hadamard(block);
    for (at, value) in (start..).zip(&mut *block).skip(1) {
        *value = f32::from_bits(value.to_bits() ^ (hash(at) & 1 << 31));
    }
    hadamard(block);
    let scale = 1.0 / block.len() as f32;
    block.iter_mut().for_each(|value| *value *= scale);
}

/// The finaliser of MurmurHash3 (Appleby 2011), which determines the sign of a position.
#[inline(always)]
fn hash(at: u32) -> u32 {
    let mut h = at.wrapping_add(1).wrapping_mul(0x9e37_79b9);
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Multiplies by the Hadamard matrix, which is its own transpose, without scaling.
#[inline(always)]
fn hadamard(block: &mut [f32]) {
    if block.len() < LANES {
        return butterflies(block, |left, right| (left + right, left - right));
    }
    let eights = block.as_chunks_mut::<LANES>().0;
    for eight in &mut *eights {
        *eight = within::<4>(within::<2>(within::<1>(*eight)));
    }
    butterflies(eights, |left, right| {
        (std::array::from_fn(|at| left[at] + right[at]), std::array::from_fn(|at| left[at] - right[at]))
    });
}

/// Sums and differences of items at distance 1, 2, 4, ...
#[inline(always)]
fn butterflies<T: Copy>(items: &mut [T], combine: impl Fn(T, T) -> (T, T)) {
    let mut half = 1;
    while half < items.len() {
        for pair in items.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (left, right) in left.iter_mut().zip(right) {
                (*left, *right) = combine(*left, *right);
            }
        }
        half *= 2;
    }
}

/// Sums and differences of values at distance `HALF`.
#[inline(always)]
fn within<const HALF: usize>(values: [f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|at| {
        let negated = u32::from(at & HALF != 0) << 31;
        values[at ^ HALF] + f32::from_bits(values[at].to_bits() ^ negated)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths that need one block, and lengths that need two with little or much overlap.
    fn lengths() -> impl Iterator<Item = usize> {
        (1..=70).chain([127, 128, 129, 255, 300, 384, 511, 1000, 4095, 4096])
    }

    fn waves(dim: usize, frequency: f32) -> Vec<f32> {
        (0..dim).map(|at| (at as f32 * frequency).sin()).collect()
    }

    fn product(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    fn rotated(cpu: Cpu, values: &[f32]) -> Vec<f32> {
        let mut values = values.to_vec();
        rotate(cpu, &mut values);
        values
    }

    #[test]
    fn rotation_keeps_inner_products_and_is_invertible_on_every_level() {
        for dim in lengths() {
            let (a, b) = (waves(dim, 0.7), waves(dim, 1.9));
            let mut first = None;
            for cpu in Cpu::each_level() {
                let (rotated_a, rotated_b) = (rotated(cpu, &a), rotated(cpu, &b));
                let error = (product(&rotated_a, &rotated_b) - product(&a, &b)).abs();
                assert!(error < 2e-6 * dim as f64, "{cpu:?} dim {dim}: {error}");
                assert_eq!(first.get_or_insert_with(|| rotated_a.clone()), &rotated_a, "{cpu:?} dim {dim}");
                let mut back = rotated_a;
                unrotate(cpu, &mut back);
                let error = back.iter().zip(&a).fold(0f32, |error, (back, a)| error.max((back - a).abs()));
                assert!(error < 2e-6, "{cpu:?} dim {dim}: {error}");
            }
        }
    }

    #[test]
    fn rotation_keeps_equal_values_and_distributes_a_single_one() {
        for dim in lengths() {
            let equal = vec![-7.25; dim];
            assert_eq!(rotated(Cpu::detect(), &equal), equal, "dim {dim}");
            for at in [0, dim / 3, dim - 1] {
                let mut single = vec![0.0; dim];
                single[at] = 1.0;
                let largest = rotated(Cpu::detect(), &single).iter().fold(0f32, |max, v| max.max(v.abs()));
                // As with random signs: a few times 1 / √dim.
                assert!(dim < 64 || largest < 0.5, "dim {dim}, value {at}: {largest}");
            }
        }
    }
}
