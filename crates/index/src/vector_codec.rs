//! The vector codec: encodes vectors as rows, and computes distances between a query and rows.

use std::borrow::Cow;

use kernels::arena::Row;
use kernels::simd::Cpu;
use kernels::simd::distance::codes::{self, CodeWidth};
use kernels::simd::distance::{self, Measure};

use crate::vector::{self, decode_into, squared_length};
use crate::{Metric, Options, Quantization, VectorType};

/// Vector lengths whose products neither overflow nor underflow in single precision.
const LENGTHS: std::ops::Range<f64> = 1e-15..1e15;

/// From this dimension on, the errors of 4-bit codes cancel out enough for the 10 nearest vectors to be among the 20
/// nearest by codes (measured: .976 of them at 24 dimensions, all at 384).
const CANCELLING_DIM_MIN: usize = 128;

/// Encodes vectors as rows of one layout, and computes distances to them.
///
/// Under cosine, a FLOAT32 row is stored normalised. The other types would lose precision in a second rounding, so
/// their rows are stored as given, with the inverse of their length (the *scale*). Quantised rows ([`codes`]) are
/// normalised before they are quantised, whatever their type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorCodec {
    dim: usize,
    metric: Metric,
    vector_type: VectorType,
    /// The width of the codes; `None` if vectors are stored in their own type.
    width: Option<CodeWidth>,
    cpu: Cpu,
}

/// A query in the form that the kernels require.
#[derive(Debug, Default)]
pub(crate) struct PreparedQuery {
    values: Vec<f32>,
    /// The values as integers if query and rows are INT8, so that sums are exact; empty otherwise.
    bytes: Vec<i8>,
    /// The factor that inner products are multiplied by, in addition to the scale of the row.
    scale: f32,
    integers: Vec<i32>,
    /// Used instead of the other fields if rows are quantised.
    codes: codes::CodeQuery,
}

/// Rows in the form that the kernels require; [`VectorCodec::push_row`] adds one.
#[derive(Debug, Default)]
pub(crate) struct RowBatch<'a> {
    plain: Vec<&'a [u8]>,
    /// Empty if every scale is 1.
    scales: Vec<f32>,
    /// Used instead of the other fields if rows are quantised.
    coded: Vec<codes::CodeRow<'a>>,
}

impl RowBatch<'_> {
    /// Clears the batch.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.plain.clear();
        self.scales.clear();
        self.coded.clear();
    }
}

/// The parts of a quantised row.
#[inline]
fn coded(row: Row<'_>) -> codes::CodeRow<'_> {
    codes::CodeRow { header: row.part(0), codes: row.part(1), residuals: row.part(2) }
}

impl VectorCodec {
    pub(crate) fn new(options: &Options, cpu: Cpu) -> VectorCodec {
        let Options { dim, metric, vector_type, quantization, .. } = *options;
        let width = match quantization {
            Quantization::None => None,
            Quantization::Int8 => Some(CodeWidth::Bits8),
            Quantization::Int4 => Some(CodeWidth::Bits4),
        };
        VectorCodec { dim, metric, vector_type, width, cpu }
    }

    /// Whether [`VectorCodec::distances`] are approximate.
    pub(crate) fn is_quantized(&self) -> bool {
        self.width.is_some()
    }

    /// The number of extra candidates to rescore, relative to 8-bit codes. The errors of 4-bit codes cancel out less
    /// in few dimensions, so more candidates are needed.
    pub(crate) fn rescore_factor(&self) -> usize {
        if self.width == Some(CodeWidth::Bits4) && self.dim < CANCELLING_DIM_MIN { 3 } else { 1 }
    }

    /// Bytes per row.
    pub(crate) fn row_bytes(&self) -> usize {
        match self.width {
            None => self.element_bytes(),
            Some(width) => codes::row_bytes(width, self.dim),
        }
    }

    /// Bytes of the elements of a vector.
    fn element_bytes(&self) -> usize {
        self.dim * self.vector_type.element().bytes()
    }

    /// Bytes of the parts of a row, which are stored in separate tables so that a graph search loads only the parts
    /// it reads.
    pub(crate) fn parts(&self) -> Vec<usize> {
        match self.width {
            None => vec![self.element_bytes()],
            Some(width) => codes::part_bytes(width, self.dim).to_vec(),
        }
    }

    /// Whether rows have a scale other than 1.
    pub(crate) fn is_scaled(&self) -> bool {
        self.metric == Metric::Cosine && self.vector_type != VectorType::Float32 && !self.is_quantized()
    }

    /// Encodes a vector as a row, and returns the row and its scale.
    ///
    /// Under cosine only the direction matters, so a vector that the type represents poorly is rescaled first: by a
    /// power of two if it is extremely long or short, and to the full range of INT8 if its values are not integers in
    /// that range.
    pub(crate) fn encode(&self, vector: &[f32]) -> (Vec<u8>, f32) {
        assert_eq!(vector.len(), self.dim, "the dimension of the vector is not that of the index");
        if let Some(width) = self.width {
            return (codes::encode(width, &self.normalized(width, vector)), 1.0);
        }
        if self.metric != Metric::Cosine {
            return (vector::encode(vector, self.vector_type), 1.0);
        }
        let length = squared_length(vector).sqrt();
        let scaled_by = |factor: f64| vector.iter().map(|&v| (f64::from(v) * factor) as f32).collect();
        let rescaled: Vec<f32> = match self.vector_type {
            VectorType::Float32 => scaled_by(1.0 / length),
            VectorType::Int8 if vector.iter().all(|&v| is_i8(v)) => vector.to_vec(),
            VectorType::Int8 => {
                let largest = vector.iter().fold(0f32, |largest, v| largest.max(v.abs()));
                scaled_by(f64::from(i8::MAX) / f64::from(largest))
            }
            // Half precision is normal only between 2⁻¹⁴ and 2¹⁶.
            VectorType::Float16 if !(1e-1..3e4).contains(&length) => {
                scaled_by((-length.log2().round()).exp2())
            }
            VectorType::Bfloat16 if !LENGTHS.contains(&length) => scaled_by((-length.log2().round()).exp2()),
            VectorType::Float16 | VectorType::Bfloat16 => vector.to_vec(),
        };
        let row = vector::encode(&rescaled, self.vector_type);
        let scale = self.scale(&row);
        (row, scale)
    }

    /// The vector that is encoded as codes: normalised under cosine, and rotated for 4-bit codes, which are so coarse
    /// that a few large values would leave the others without precision.
    fn normalized<'a>(&self, width: CodeWidth, vector: &'a [f32]) -> Cow<'a, [f32]> {
        let mut normalized = Cow::Borrowed(vector);
        if self.metric == Metric::Cosine {
            let inverse = 1.0 / squared_length(vector).sqrt();
            normalized = vector.iter().map(|&v| (f64::from(v) * inverse) as f32).collect();
        }
        if width == CodeWidth::Bits4 {
            codes::rotate(self.cpu, normalized.to_mut());
        }
        normalized
    }

    /// The scale of a row.
    pub(crate) fn scale(&self, row: &[u8]) -> f32 {
        if !self.is_scaled() {
            return 1.0;
        }
        let mut values = Vec::new();
        decode_into(row, self.vector_type, &mut values);
        inverse_length(squared_length(&values).sqrt())
    }

    /// Whether a row from an untrusted source has finite values only, and is consistent.
    pub(crate) fn is_valid_row(&self, row: &[u8]) -> bool {
        if let Some(width) = self.width {
            return codes::is_valid(width, codes::CodeRow::from_bytes(width, row));
        }
        // No branches in the loop, so that the compiler vectorises it.
        let is_finite_16 = |exponent: u16| {
            let infinite = |b: &[u8; 2]| u16::from_le_bytes(*b) & exponent == exponent;
            !row.as_chunks().0.iter().fold(false, |any, b| any | infinite(b))
        };
        match self.vector_type {
            VectorType::Float32 => {
                let infinite = |b: &[u8; 4]| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000;
                !row.as_chunks().0.iter().fold(false, |any, b| any | infinite(b))
            }
            VectorType::Float16 => is_finite_16(0x7c00),
            VectorType::Bfloat16 => is_finite_16(0x7f80),
            VectorType::Int8 => true,
        }
    }

    /// Decodes a row.
    pub(crate) fn decode(&self, row: Row<'_>) -> Vec<f32> {
        let mut values = Vec::new();
        match self.width {
            None => decode_into(row.part(0), self.vector_type, &mut values),
            Some(width) => {
                codes::decode(width, coded(row), &mut values);
                if width == CodeWidth::Bits4 {
                    codes::unrotate(self.cpu, &mut values);
                }
            }
        }
        values
    }

    /// Prepares `query` from a vector.
    pub(crate) fn prepare(&self, vector: &[f32], query: &mut PreparedQuery) {
        assert_eq!(vector.len(), self.dim, "the dimension of the query is not that of the index");
        if let Some(width) = self.width {
            query.codes.set_values(width, &self.normalized(width, vector));
            return;
        }
        query.values.clear();
        query.bytes.clear();
        query.scale = 1.0;
        let length = if self.metric == Metric::Cosine { squared_length(vector).sqrt() } else { 1.0 };
        if self.vector_type == VectorType::Int8 && vector.iter().all(|&v| is_i8(v)) {
            query.bytes.extend(vector.iter().map(|&v| v as i8));
            query.scale = inverse_length(length);
        } else {
            query.values.extend(vector.iter().map(|&v| (f64::from(v) / length) as f32));
        }
    }

    /// Prepares `query` from a row, for use with [`VectorCodec::distances`] only.
    pub(crate) fn prepare_from_row(&self, row: Row<'_>, scale: f32, query: &mut PreparedQuery) {
        if let Some(width) = self.width {
            query.codes.set_row(width, coded(row), false);
            return;
        }
        let row = row.part(0);
        query.bytes.clear();
        query.scale = scale;
        if self.vector_type == VectorType::Int8 {
            query.bytes.extend(row.iter().map(|b| b.cast_signed()));
        } else {
            decode_into(row, self.vector_type, &mut query.values);
        }
    }

    /// Adds a row to the batch, and prefetches the parts that [`VectorCodec::distances`] reads.
    #[inline]
    pub(crate) fn push_row<'a>(&self, row: Row<'a>, scale: impl Fn() -> f32, rows: &mut RowBatch<'a>) {
        if self.is_quantized() {
            let row = coded(row);
            distance::prefetch_many(row.codes);
            distance::prefetch_many(row.header);
            rows.coded.push(row);
            return;
        }
        distance::prefetch_many(row.part(0));
        rows.plain.push(row.part(0));
        if self.is_scaled() {
            rows.scales.push(scale());
        }
    }

    /// Distances to the rows of the batch, from codes alone if they are quantised. Graph search uses these.
    #[inline]
    pub(crate) fn distances(&self, query: &mut PreparedQuery, rows: &RowBatch<'_>, out: &mut [f32]) {
        let measure = self.measure();
        if self.is_quantized() {
            codes::score(self.cpu, measure, &query.codes, &rows.coded, out);
        } else if query.bytes.is_empty() {
            distance::score(self.cpu, self.vector_type.element(), measure, &query.values, &rows.plain, out);
        } else {
            query.integers.resize(rows.plain.len(), 0);
            distance::score_i8(self.cpu, measure, &query.bytes, &rows.plain, &mut query.integers);
            for (out, &sum) in out.iter_mut().zip(&query.integers) {
                *out = sum as f32;
            }
        }
        self.scores_to_distances(query, &rows.scales, out);
    }

    /// Distances to the rows of the batch at their full precision.
    pub(crate) fn exact_distances(&self, query: &mut PreparedQuery, rows: &RowBatch<'_>, out: &mut [f32]) {
        if !self.is_quantized() {
            return self.distances(query, rows, out);
        }
        rows.coded.iter().for_each(|row| distance::prefetch_many(row.residuals));
        codes::score_with_residuals(self.cpu, self.measure(), &query.codes, &rows.coded, out);
        self.scores_to_distances(query, &rows.scales, out);
    }

    fn measure(&self) -> Measure {
        match self.metric {
            Metric::Cosine | Metric::Ip => Measure::InnerProduct,
            Metric::L2 => Measure::SquaredL2,
        }
    }

    /// Converts inner products and squared differences to distances.
    fn scores_to_distances(&self, query: &PreparedQuery, scales: &[f32], out: &mut [f32]) {
        match self.metric {
            Metric::L2 => {}
            Metric::Ip => out.iter_mut().for_each(|product| *product = 1.0 - *product),
            Metric::Cosine if self.is_scaled() => {
                for (product, scale) in out.iter_mut().zip(scales) {
                    *product = 1.0 - *product * (query.scale * scale);
                }
            }
            Metric::Cosine => out.iter_mut().for_each(|product| *product = 1.0 - *product),
        }
    }
}

/// Whether the value is an integer from -128 to 127.
fn is_i8(value: f32) -> bool {
    f32::from(value as i8) == value
}

/// The scale of a vector of this length. 0 for a vector without direction, which gives it distance 1 to
/// everything.
fn inverse_length(length: f64) -> f32 {
    if length > 0.0 { (1.0 / length) as f32 } else { 0.0 }
}
