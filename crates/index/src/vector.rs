//! Vectors as the caller gives them: element types, encoding and validation.

use half::{bf16, f16};
use kernels::simd::distance::Element;

use crate::Metric;

/// Maximum number of dimensions.
pub const DIM_MAX: usize = 4096;

/// Maximum squared length. The squared distance of two such vectors is at most four times as large, which still fits
/// into single precision.
const SQUARED_LENGTH_MAX: f64 = f32::MAX as f64 / 4.0;

/// The element type of encoded vectors; elements are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorType {
    /// IEEE 754 single precision.
    Float32,
    /// IEEE 754 half precision.
    Float16,
    /// bfloat16: the upper half of a single-precision number.
    Bfloat16,
    /// Signed 8-bit integers.
    Int8,
}

impl VectorType {
    pub(crate) fn element(self) -> Element {
        match self {
            VectorType::Float32 => Element::F32,
            VectorType::Float16 => Element::F16,
            VectorType::Bfloat16 => Element::Bf16,
            VectorType::Int8 => Element::I8,
        }
    }

    /// The name of the type in Redis.
    pub fn name(self) -> &'static str {
        match self {
            VectorType::Float32 => "FLOAT32",
            VectorType::Float16 => "FLOAT16",
            VectorType::Bfloat16 => "BFLOAT16",
            VectorType::Int8 => "INT8",
        }
    }
}

/// Why a vector is invalid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// The vector has the wrong number of values.
    #[error("vector dimensions do not match: expected {expected}, found {found}")]
    Dimensions {
        /// Dimension of the index.
        expected: usize,
        /// Dimension of the vector.
        found: usize,
    },
    /// The blob has the wrong size.
    #[error("vector dimensions do not match: expected {expected} bytes ({dim} x {element}), found {found}")]
    BlobSize {
        /// Bytes per vector.
        expected: usize,
        /// Bytes in the blob.
        found: usize,
        /// Dimension of the index.
        dim: usize,
        /// The element type.
        element: &'static str,
    },
    /// A value is NaN or infinite.
    #[error("vector value {index} is {value}: every value must be finite")]
    NotFinite {
        /// Position of the value, from 0.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The vector has no direction, which cosine distance needs.
    #[error("vector is all zeros: it has no direction, so cosine distance is undefined")]
    Zero,
    /// The vector is so long that squared distances could overflow single precision.
    #[error("vector is too long: its squared length overflows 32-bit floats")]
    TooLong,
}

/// Decodes a little-endian blob of `dim` elements, and validates it with [`check`].
pub fn decode(
    blob: &[u8],
    dim: usize,
    vector_type: VectorType,
    metric: Metric,
) -> Result<Vec<f32>, VectorError> {
    let expected = dim * vector_type.element().bytes();
    if blob.len() != expected {
        let element = vector_type.name();
        return Err(VectorError::BlobSize { expected, found: blob.len(), dim, element });
    }
    let mut values = Vec::new();
    decode_into(blob, vector_type, &mut values);
    check(&values, dim, metric)?;
    Ok(values)
}

/// Replaces the content of `values` with the decoded elements.
pub(crate) fn decode_into(blob: &[u8], vector_type: VectorType, values: &mut Vec<f32>) {
    values.clear();
    match vector_type {
        VectorType::Float32 => values.extend(blob.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        VectorType::Float16 => {
            values.extend(blob.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()));
        }
        VectorType::Bfloat16 => {
            values.extend(blob.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()));
        }
        VectorType::Int8 => values.extend(blob.iter().map(|&b| f32::from(b.cast_signed()))),
    }
}

/// Encodes values as a little-endian blob of `vector_type`. Values are rounded to nearest and clamped to the finite
/// range of the type.
pub fn encode(values: &[f32], vector_type: VectorType) -> Vec<u8> {
    match vector_type {
        VectorType::Float32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        VectorType::Float16 => {
            let (min, max) = (f16::MIN.to_f32(), f16::MAX.to_f32());
            values.iter().flat_map(|v| f16::from_f32(v.clamp(min, max)).to_le_bytes()).collect()
        }
        VectorType::Bfloat16 => {
            let (min, max) = (bf16::MIN.to_f32(), bf16::MAX.to_f32());
            values.iter().flat_map(|v| bf16::from_f32(v.clamp(min, max)).to_le_bytes()).collect()
        }
        // The cast saturates.
        VectorType::Int8 => values.iter().map(|v| (v.round() as i8).cast_unsigned()).collect(),
    }
}

/// Validates a vector that is to be inserted or searched for: dimension, finite values, length, direction.
pub fn check(values: &[f32], dim: usize, metric: Metric) -> Result<(), VectorError> {
    if values.len() != dim {
        return Err(VectorError::Dimensions { expected: dim, found: values.len() });
    }
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(VectorError::NotFinite { index, value: values[index] });
    }
    let squared_length = squared_length(values);
    if squared_length > SQUARED_LENGTH_MAX {
        return Err(VectorError::TooLong);
    }
    if metric == Metric::Cosine && squared_length == 0.0 {
        return Err(VectorError::Zero);
    }
    Ok(())
}

/// The squared length in double precision, in which the square of a single-precision value neither overflows nor
/// underflows.
pub(crate) fn squared_length(values: &[f32]) -> f64 {
    // Several independent sums shorten the dependency chain.
    let mut sums = [0.0; 8];
    for values in values.chunks(sums.len()) {
        sums.iter_mut().zip(values).for_each(|(sum, &v)| *sum += f64::from(v) * f64::from(v));
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [VectorType; 4] =
        [VectorType::Float32, VectorType::Float16, VectorType::Bfloat16, VectorType::Int8];

    #[test]
    fn values_that_the_type_represents_round_trip_exactly() {
        let values = [0.0, -1.0, 64.0, 127.0, -128.0, 3.0];
        for vector_type in TYPES {
            let blob = encode(&values, vector_type);
            assert_eq!(decode(&blob, 6, vector_type, Metric::Cosine).unwrap(), values, "{vector_type:?}");
        }
    }

    #[test]
    fn values_are_rounded_to_nearest_and_clamped() {
        let round_trip = |value, vector_type| {
            decode(&encode(&[value], vector_type), 1, vector_type, Metric::Ip).unwrap()[0]
        };
        assert_eq!(round_trip(1e6, VectorType::Float16), 65504.0);
        assert_eq!(round_trip(-1e6, VectorType::Float16), -65504.0);
        assert_eq!(round_trip(1.0 + 0.75 / 1024.0, VectorType::Float16), 1.0 + 1.0 / 1024.0);
        assert_eq!(round_trip(1.0 + 0.75 / 128.0, VectorType::Bfloat16), 1.0 + 1.0 / 128.0);
        assert_eq!(round_trip(126.6, VectorType::Int8), 127.0);
        assert_eq!(round_trip(-500.0, VectorType::Int8), -128.0);
    }

    #[test]
    fn errors_name_the_invalid_value() {
        let message = |values: &[f32]| check(values, 2, Metric::Cosine).unwrap_err().to_string();
        assert_eq!(message(&[1.0]), "vector dimensions do not match: expected 2, found 1");
        assert_eq!(message(&[1.0, f32::NAN]), "vector value 1 is NaN: every value must be finite");
        assert_eq!(message(&[f32::NEG_INFINITY, 1.0]), "vector value 0 is -inf: every value must be finite");
        assert!(message(&[0.0, -0.0]).contains("no direction"));
        assert!(message(&[3e19, 0.0]).contains("too long"));
        assert_eq!(check(&[0.0, 0.0], 2, Metric::Ip), Ok(()));
        // The shortest nonzero vector has a direction.
        assert_eq!(check(&[f32::from_bits(1), 0.0], 2, Metric::Cosine), Ok(()));
        let error = decode(&[0; 7], 2, VectorType::Float32, Metric::L2).unwrap_err().to_string();
        assert_eq!(error, "vector dimensions do not match: expected 8 bytes (2 x FLOAT32), found 7");
        let infinite = decode(&[0, 0x7c], 1, VectorType::Float16, Metric::L2);
        assert!(matches!(infinite, Err(VectorError::NotFinite { index: 0, .. })));
    }
}
