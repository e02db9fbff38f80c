//! How wide codes are, and how they lie in bytes.

use super::FINE;

/// How wide the codes of a row are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CodeWidth {
    /// A byte each.
    #[default]
    Bits8,
    /// Two in a byte. Of each block of 128 values, or of what is left over at the end, the first
    /// half lies in the low nibbles and the second in the high ones of the same bytes.
    Bits4,
}

/// Values of a block of packed codes.
const BLOCK: usize = 128;

impl CodeWidth {
    /// The largest code.
    pub(super) fn code_max(self) -> i32 {
        match self {
            CodeWidth::Bits8 => 255,
            CodeWidth::Bits4 => 15,
        }
    }

    /// The largest value in steps of the second level: the largest code, no residual.
    pub(super) fn fine_max(self) -> i32 {
        self.code_max() * FINE
    }

    /// Bytes of the codes of `dim` values.
    pub(super) fn code_bytes(self, dim: usize) -> usize {
        match self {
            CodeWidth::Bits8 => dim,
            CodeWidth::Bits4 => dim.div_ceil(2),
        }
    }

    /// Values of a row whose two levels have so many bytes.
    pub(super) fn dim(self, level_bytes: usize) -> usize {
        match self {
            CodeWidth::Bits8 => level_bytes / 2,
            CodeWidth::Bits4 => level_bytes * 2 / 3,
        }
    }
}

/// What lies together where codes are packed.
pub(super) fn blocks<T>(values: &[T]) -> std::slice::Chunks<'_, T> {
    values.chunks(BLOCK)
}

/// Of a block what belongs to low nibbles, and what to high ones.
pub(super) fn halves<T>(block: &[T]) -> (&[T], &[T]) {
    block.split_at(block.len().div_ceil(2))
}

/// Appends 4-bit codes, of which one a value comes in, two in a byte.
pub(super) fn pack(codes: &[u8], packed: &mut Vec<u8>) {
    for block in blocks(codes) {
        let (low, high) = halves(block);
        let high = high.iter().chain(std::iter::repeat(&0));
        packed.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
    }
}

/// Writes 4-bit codes out, one a value.
pub(super) fn unpack(packed: &[u8], codes: &mut [u8]) {
    for (block, packed) in codes.chunks_mut(BLOCK).zip(packed.chunks(BLOCK / 2)) {
        let (low, high) = block.split_at_mut(block.len().div_ceil(2));
        low.iter_mut().zip(packed).for_each(|(low, packed)| *low = packed & 0x0f);
        high.iter_mut().zip(packed).for_each(|(high, packed)| *high = packed >> 4);
    }
}
