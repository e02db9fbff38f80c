//! The width of codes and their layout in bytes.

use super::RESIDUAL_STEPS;

/// The width of the codes of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CodeWidth {
    /// One code per byte.
    #[default]
    Bits8,
    /// Two codes per byte. Of each block of 128 values, and of the rest at the end, the first half is in the low nibbles
    /// and the second half in the high nibbles of the same bytes.
    Bits4,
}

/// Values per block of packed codes.
const BLOCK: usize = 128;

impl CodeWidth {
    /// The largest code.
    pub(super) fn code_max(self) -> i32 {
        match self {
            CodeWidth::Bits8 => 255,
            CodeWidth::Bits4 => 15,
        }
    }

    /// The largest value in residual steps: the largest code without a residual.
    pub(super) fn residual_steps_max(self) -> i32 {
        self.code_max() * RESIDUAL_STEPS
    }

    /// Bytes of the codes of `dim` values.
    pub(super) fn code_bytes(self, dim: usize) -> usize {
        match self {
            CodeWidth::Bits8 => dim,
            CodeWidth::Bits4 => dim.div_ceil(2),
        }
    }

    /// Dimension of a row whose codes and residuals have `level_bytes` bytes.
    pub(super) fn dim(self, level_bytes: usize) -> usize {
        match self {
            CodeWidth::Bits8 => level_bytes / 2,
            CodeWidth::Bits4 => level_bytes * 2 / 3,
        }
    }
}

/// The blocks in which codes are packed.
pub(super) fn blocks<T>(values: &[T]) -> std::slice::Chunks<'_, T> {
    values.chunks(BLOCK)
}

/// The values of a block that go into the low nibbles, and those that go into the high ones.
pub(super) fn halves<T>(block: &[T]) -> (&[T], &[T]) {
    block.split_at(block.len().div_ceil(2))
}

/// Appends 4-bit codes, two per byte.
pub(super) fn pack(codes: &[u8], packed: &mut Vec<u8>) {
    for block in blocks(codes) {
        let (low, high) = halves(block);
        let high = high.iter().chain(std::iter::repeat(&0));
        packed.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
    }
}

/// Unpacks 4-bit codes, one per byte.
pub(super) fn unpack(packed: &[u8], codes: &mut [u8]) {
    for (block, packed) in codes.chunks_mut(BLOCK).zip(packed.chunks(BLOCK / 2)) {
        let (low, high) = block.split_at_mut(block.len().div_ceil(2));
        low.iter_mut().zip(packed).for_each(|(low, packed)| *low = packed & 0x0f);
        high.iter_mut().zip(packed).for_each(|(high, packed)| *high = packed >> 4);
    }
}
