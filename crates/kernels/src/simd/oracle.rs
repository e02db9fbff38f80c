//! Reference implementations in double precision for the tests.

/// Pseudo-random values in [-1, 1] (a xorshift generator with a fixed seed), at an address that is not aligned to the
/// size of a vector register.
pub(super) struct Values(pub(super) Vec<f32>);

impl Values {
    pub(super) fn new(seed: u64, len: usize) -> Values {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        Values((0..len + 1).map(|_| next()).collect())
    }

    pub(super) fn unaligned(&self) -> &[f32] {
        &self.0[1..]
    }

    pub(super) fn unaligned_mut(&mut self) -> &mut [f32] {
        &mut self.0[1..]
    }
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

pub(super) fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// `erf` by a series without cancellation (Abramowitz and Stegun 7.1.6), to double precision.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..600 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// Scaled dot-product attention of rows of query, key and value.
pub(super) fn attention(qkv: &[f32], tokens: usize, heads: usize, depth: usize) -> Vec<f64> {
    let width = heads * depth;
    let row = |token: usize, part: usize, head: usize| {
        wide(&qkv[token * 3 * width + part * width + head * depth..][..depth])
    };
    let mut out = vec![0.0; tokens * width];
    for head in 0..heads {
        for token in 0..tokens {
            let query = row(token, 0, head);
            let weights: Vec<f64> = (0..tokens)
                .map(|other| {
                    let score: f64 = query.iter().zip(row(other, 1, head)).map(|(q, k)| q * k).sum();
                    (score / (depth as f64).sqrt()).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for (other, weight) in weights.iter().enumerate() {
                for (d, value) in row(other, 2, head).iter().enumerate() {
                    out[token * width + head * depth + d] += weight / total * value;
                }
            }
        }
    }
    out
}
