//! Rows and distances: how vectors are held, and how far a query is from them.

use std::borrow::Cow;

use kernels::arena::Row;
use kernels::simd::Cpu;
use kernels::simd::distance::codes::{self, CodeWidth};
use kernels::simd::distance::{self, Measure};

use crate::vector::{decode_into, encode, squared_length};
use crate::{Metric, Options, Quantization, VectorType};

/// Lengths between which products of singles neither overflow nor vanish.
const LENGTHS: std::ops::Range<f64> = 1e-15..1e15;

/// Of so many values the errors of 4-bit codes cancel out enough for the ten nearest to be among the
/// twenty that seem to be (measured: 24 values, .976 of them; 384, all).
const CANCELLING: usize = 128;

/// Measures distances between vectors of one kind.
///
/// Under cosine a FLOAT32 row is held normalised. The other types would lose precision to a
/// second rounding, so their rows are held as given, each with the inverse of its length (its *scale*).
/// Quantised rows ([`codes`]) are normalised first, whatever their type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorCodec {
    dim: usize,
    metric: Metric,
    vector_type: VectorType,
    /// How wide codes are; `None` if vectors are held in their type.
    width: Option<CodeWidth>,
    cpu: Cpu,
}

/// A query made ready for the kernels.
#[derive(Debug, Default)]
pub(crate) struct Query {
    values: Vec<f32>,
    /// The values as bytes, where both sides are bytes and sums can be exact; else empty.
    bytes: Vec<i8>,
    /// What inner products are multiplied by, besides the row's scale.
    scale: f32,
    integers: Vec<i32>,
    /// In place of all the others where rows are quantised.
    codes: codes::CodeQuery,
}

/// Rows for the kernels; [`VectorCodec::gather`] adds one.
#[derive(Debug, Default)]
pub(crate) struct Gathered<'a> {
    plain: Vec<&'a [u8]>,
    /// Empty where every scale is 1.
    scales: Vec<f32>,
    /// In place of all the others where rows are quantised.
    coded: Vec<codes::CodeRow<'a>>,
}

impl Gathered<'_> {
    /// Forgets them.
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

    /// Whether [`VectorCodec::distances`] are not the distances to what rows hold, but near them.
    pub(crate) fn is_quantized(&self) -> bool {
        self.width.is_some()
    }

    /// How far [`VectorCodec::distances`] scatter what is near, in times what 8-bit codes do: the fewer
    /// values there are, the less do the errors of 4-bit codes cancel out.
    pub(crate) fn spread(&self) -> usize {
        if self.width == Some(CodeWidth::Bits4) && self.dim < CANCELLING { 3 } else { 1 }
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        match self.width {
            None => self.element_bytes(),
            Some(width) => codes::row_bytes(width, self.dim),
        }
    }

    /// Bytes of a vector's elements.
    fn element_bytes(&self) -> usize {
        self.dim * self.vector_type.element().bytes()
    }

    /// Bytes of the parts of a row that lie apart: what walks read, and what they do not.
    pub(crate) fn parts(&self) -> Vec<usize> {
        match self.width {
            None => vec![self.element_bytes()],
            Some(width) => codes::part_bytes(width, self.dim).to_vec(),
        }
    }

    /// Whether rows have scales other than 1.
    pub(crate) fn is_scaled(&self) -> bool {
        self.metric == Metric::Cosine && self.vector_type != VectorType::Float32 && !self.is_quantized()
    }

    /// The row a vector is held as, and its scale.
    ///
    /// Under cosine only the direction counts, so a vector that the type cannot hold well is
    /// scaled first: by a power of two if it is extremely long or short, and to fill the range of
    /// INT8 if its values are not integers of that range.
    pub(crate) fn row(&self, vector: &[f32]) -> (Vec<u8>, f32) {
        assert_eq!(vector.len(), self.dim, "a checked vector has the index's dimension");
        if let Some(width) = self.width {
            return (codes::encode(width, &self.coded(width, vector)), 1.0);
        }
        if self.metric != Metric::Cosine {
            return (encode(vector, self.vector_type), 1.0);
        }
        let length = squared_length(vector).sqrt();
        let scaled_by = |factor: f64| vector.iter().map(|&v| (f64::from(v) * factor) as f32).collect();
        let held: Vec<f32> = match self.vector_type {
            VectorType::Float32 => scaled_by(1.0 / length),
            VectorType::Int8 if vector.iter().all(|&v| is_byte(v)) => vector.to_vec(),
            VectorType::Int8 => {
                let largest = vector.iter().fold(0f32, |largest, v| largest.max(v.abs()));
                scaled_by(f64::from(i8::MAX) / f64::from(largest))
            }
            // Halves are exact between 2⁻¹⁴ and 2¹⁶ only.
            VectorType::Float16 if !(1e-1..3e4).contains(&length) => {
                scaled_by((-length.log2().round()).exp2())
            }
            VectorType::Bfloat16 if !LENGTHS.contains(&length) => scaled_by((-length.log2().round()).exp2()),
            VectorType::Float16 | VectorType::Bfloat16 => vector.to_vec(),
        };
        let row = encode(&held, self.vector_type);
        let scale = self.scale(&row);
        (row, scale)
    }

    /// The vector as codes hold it: normalised under cosine, and rotated where codes are so coarse
    /// that a few large values would leave nothing of the others.
    fn coded<'a>(&self, width: CodeWidth, vector: &'a [f32]) -> Cow<'a, [f32]> {
        let mut held = Cow::Borrowed(vector);
        if self.metric == Metric::Cosine {
            let inverse = 1.0 / squared_length(vector).sqrt();
            held = vector.iter().map(|&v| (f64::from(v) * inverse) as f32).collect();
        }
        if width == CodeWidth::Bits4 {
            codes::rotate(self.cpu, held.to_mut());
        }
        held
    }

    /// The scale of a row.
    pub(crate) fn scale(&self, row: &[u8]) -> f32 {
        if !self.is_scaled() {
            return 1.0;
        }
        let mut values = Vec::new();
        decode_into(row, self.vector_type, &mut values);
        inverse(squared_length(&values).sqrt())
    }

    /// Whether a row, from outside, has finite values only, and is consistent in itself.
    pub(crate) fn is_valid_row(&self, row: &[u8]) -> bool {
        if let Some(width) = self.width {
            return codes::is_valid(width, codes::CodeRow::from_bytes(width, row));
        }
        // Without branches inside, so that the compiler can use vectors.
        let halves = |exponent: u16| {
            let infinite = |b: &[u8; 2]| u16::from_le_bytes(*b) & exponent == exponent;
            !row.as_chunks().0.iter().fold(false, |any, b| any | infinite(b))
        };
        match self.vector_type {
            VectorType::Float32 => {
                let infinite = |b: &[u8; 4]| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000;
                !row.as_chunks().0.iter().fold(false, |any, b| any | infinite(b))
            }
            VectorType::Float16 => halves(0x7c00),
            VectorType::Bfloat16 => halves(0x7f80),
            VectorType::Int8 => true,
        }
    }

    /// The values of a row.
    pub(crate) fn values(&self, row: Row<'_>) -> Vec<f32> {
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

    /// Makes `query` ask for what is near `vector`.
    pub(crate) fn prepare(&self, vector: &[f32], query: &mut Query) {
        assert_eq!(vector.len(), self.dim, "a checked query has the index's dimension");
        if let Some(width) = self.width {
            query.codes.set_values(width, &self.coded(width, vector));
            return;
        }
        query.values.clear();
        query.bytes.clear();
        query.scale = 1.0;
        let length = if self.metric == Metric::Cosine { squared_length(vector).sqrt() } else { 1.0 };
        if self.vector_type == VectorType::Int8 && vector.iter().all(|&v| is_byte(v)) {
            query.bytes.extend(vector.iter().map(|&v| v as i8));
            query.scale = inverse(length);
        } else {
            query.values.extend(vector.iter().map(|&v| (f64::from(v) / length) as f32));
        }
    }

    /// Makes `query` ask for what is near a row, for [`VectorCodec::distances`] alone.
    pub(crate) fn prepare_row(&self, row: Row<'_>, scale: f32, query: &mut Query) {
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

    /// Gathers a row and asks for what [`VectorCodec::distances`] reads of it.
    #[inline]
    pub(crate) fn gather<'a>(&self, row: Row<'a>, scale: impl Fn() -> f32, rows: &mut Gathered<'a>) {
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

    /// Distances of gathered rows: what walks go by.
    #[inline]
    pub(crate) fn distances(&self, query: &mut Query, rows: &Gathered<'_>, out: &mut [f32]) {
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
        self.finish(query, &rows.scales, out);
    }

    /// Distances of gathered rows to all that they hold.
    pub(crate) fn exact_distances(&self, query: &mut Query, rows: &Gathered<'_>, out: &mut [f32]) {
        if !self.is_quantized() {
            return self.distances(query, rows, out);
        }
        rows.coded.iter().for_each(|row| distance::prefetch_many(row.residuals));
        codes::score_with_residuals(self.cpu, self.measure(), &query.codes, &rows.coded, out);
        self.finish(query, &rows.scales, out);
    }

    fn measure(&self) -> Measure {
        match self.metric {
            Metric::Cosine | Metric::Ip => Measure::InnerProduct,
            Metric::L2 => Measure::SquaredL2,
        }
    }

    /// Makes distances of what was measured.
    fn finish(&self, query: &Query, scales: &[f32], out: &mut [f32]) {
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

/// Whether a signed byte holds the value exactly.
fn is_byte(value: f32) -> bool {
    f32::from(value as i8) == value
}

/// The scale of a vector of this length; 0 for one without direction, which is thus at
/// distance 1 of everything.
fn inverse(length: f64) -> f32 {
    if length > 0.0 { (1.0 / length) as f32 } else { 0.0 }
}
