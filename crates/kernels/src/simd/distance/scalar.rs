//! The kernels in plain Rust: the fallback on every machine and the reference for all levels.
//!
//! Sums run in 16 lanes, so that the compiler can use the vector registers of the target, and rounding errors grow
//! with a 16th of the length.

const LANES: usize = 16;

/// The value of an IEEE 754 half-precision number.
pub(super) fn f16_value(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    let sign = u32::from(bits & 0x8000) << 16;
    // Shifted into the fields of a single, the exponent is 112 too small. A multiplication corrects that, also for
    // subnormals, but not for infinities and NaN, whose exponent must become all ones.
    let widened = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let exponent = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(widened.to_bits() | exponent | sign)
}

/// The value of a bfloat16 number.
pub(super) fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

macro_rules! kernel {
    ($name:ident, $bytes:literal, $value:expr, |$q:ident, $v:ident| $term:expr) => {
        pub(super) fn $name(query: &[f32], rows: &[&[u8]], out: &mut [f32]) {
            for (row, out) in rows.iter().zip(out) {
                let (query, query_rest) = query.as_chunks::<LANES>();
                let (row, row_rest) = row.as_chunks::<{ LANES * $bytes }>();
                let mut sums = [0f32; LANES];
                for (query, row) in query.iter().zip(row) {
                    for ((sum, &$q), v) in sums.iter_mut().zip(query).zip(row.as_chunks::<$bytes>().0) {
                        let $v: f32 = $value(*v);
                        *sum += $term;
                    }
                }
                for ((sum, &$q), v) in sums.iter_mut().zip(query_rest).zip(row_rest.as_chunks::<$bytes>().0) {
                    let $v: f32 = $value(*v);
                    *sum += $term;
                }
                *out = sums.iter().sum();
            }
        }
    };
}

kernel!(ip_f32, 4, f32::from_le_bytes, |q, v| q * v);
kernel!(l2_f32, 4, f32::from_le_bytes, |q, v| (q - v) * (q - v));
kernel!(ip_f16, 2, |v| f16_value(u16::from_le_bytes(v)), |q, v| q * v);
kernel!(l2_f16, 2, |v| f16_value(u16::from_le_bytes(v)), |q, v| (q - v) * (q - v));
kernel!(ip_bf16, 2, |v| bf16_value(u16::from_le_bytes(v)), |q, v| q * v);
kernel!(l2_bf16, 2, |v| bf16_value(u16::from_le_bytes(v)), |q, v| (q - v) * (q - v));
kernel!(ip_i8, 1, |v| f32::from(i8::from_le_bytes(v)), |q, v| q * v);
kernel!(l2_i8, 1, |v| f32::from(i8::from_le_bytes(v)), |q, v| (q - v) * (q - v));

pub(super) fn ip_i8_exact(query: &[i8], rows: &[&[u8]], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        *out = query.iter().zip(*row).map(|(&q, &v)| i32::from(q) * i32::from(v.cast_signed())).sum();
    }
}

pub(super) fn l2_i8_exact(query: &[i8], rows: &[&[u8]], out: &mut [i32]) {
    for (row, out) in rows.iter().zip(out) {
        *out = query
            .iter()
            .zip(*row)
            .map(|(&q, &v)| i32::from(q) - i32::from(v.cast_signed()))
            .map(|difference| difference * difference)
            .sum();
    }
}
