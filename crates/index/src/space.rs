//! Rows and distances: how vectors are held, and how far a query is from them.

use std::borrow::Cow;

use kernels::arena::Row;
use kernels::simd::Cpu;
use kernels::simd::distance::codes::{self, Bits};
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
pub(crate) struct Space {
    dim: usize,
    metric: Metric,
    vector_type: VectorType,
    /// How wide codes are; `None` if vectors are held in their type.
    bits: Option<Bits>,
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
    codes: codes::Query,
}

/// Rows for the kernels; [`Space::gather`] adds one.
#[derive(Debug, Default)]
pub(crate) struct Gathered<'a> {
    plain: Vec<&'a [u8]>,
    /// Empty where every scale is 1.
    scales: Vec<f32>,
    /// In place of all the others where rows are quantised.
    coded: Vec<codes::Row<'a>>,
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
fn coded(row: Row<'_>) -> codes::Row<'_> {
    codes::Row { header: row.part(0), codes: row.part(1), residuals: row.part(2) }
}

impl Space {
    pub(crate) fn new(options: &Options, cpu: Cpu) -> Space {
        let Options { dim, metric, vector_type, quantization, .. } = *options;
        let bits = match quantization {
            Quantization::None => None,
            Quantization::Int8 => Some(Bits::Eight),
            Quantization::Int4 => Some(Bits::Four),
        };
        Space { dim, metric, vector_type, bits, cpu }
    }

    /// Whether [`Space::distances`] are not the distances to what rows hold, but near them.
    pub(crate) fn is_quantized(&self) -> bool {
        self.bits.is_some()
    }

    /// How far [`Space::distances`] scatter what is near, in times what 8-bit codes do: the fewer
    /// values there are, the less do the errors of 4-bit codes cancel out.
    pub(crate) fn spread(&self) -> usize {
        if self.bits == Some(Bits::Four) && self.dim < CANCELLING { 3 } else { 1 }
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        match self.bits {
            None => self.element_bytes(),
            Some(bits) => codes::row_bytes(bits, self.dim),
        }
    }

    /// Bytes of a vector's elements.
    fn element_bytes(&self) -> usize {
        self.dim * self.vector_type.element().bytes()
    }

    /// Bytes of the parts of a row that lie apart: what walks read, and what they do not.
    pub(crate) fn parts(&self) -> Vec<usize> {
        match self.bits {
            None => vec![self.element_bytes()],
            Some(bits) => codes::parts(bits, self.dim).to_vec(),
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
        if let Some(bits) = self.bits {
            return (codes::encode(bits, &self.coded(bits, vector)), 1.0);
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
    fn coded<'a>(&self, bits: Bits, vector: &'a [f32]) -> Cow<'a, [f32]> {
        let mut held = Cow::Borrowed(vector);
        if self.metric == Metric::Cosine {
            let inverse = 1.0 / squared_length(vector).sqrt();
            held = vector.iter().map(|&v| (f64::from(v) * inverse) as f32).collect();
        }
        if bits == Bits::Four {
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
    pub(crate) fn is_sound(&self, row: &[u8]) -> bool {
        if let Some(bits) = self.bits {
            return codes::is_sound(bits, codes::Row::of(bits, row));
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
        match self.bits {
            None => decode_into(row.part(0), self.vector_type, &mut values),
            Some(bits) => {
                codes::decode(bits, coded(row), &mut values);
                if bits == Bits::Four {
                    codes::rotate_back(self.cpu, &mut values);
                }
            }
        }
        values
    }

    /// Makes `query` ask for what is near `vector`.
    pub(crate) fn prepare(&self, vector: &[f32], query: &mut Query) {
        assert_eq!(vector.len(), self.dim, "a checked query has the index's dimension");
        if let Some(bits) = self.bits {
            query.codes.set_values(bits, &self.coded(bits, vector));
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

    /// Makes `query` ask for what is near a row, for [`Space::distances`] alone.
    pub(crate) fn prepare_row(&self, row: Row<'_>, scale: f32, query: &mut Query) {
        if let Some(bits) = self.bits {
            query.codes.set_row(bits, coded(row), false);
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

    /// Gathers a row and asks for what [`Space::distances`] reads of it.
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
        codes::score_fine(self.cpu, self.measure(), &query.codes, &rows.coded, out);
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
