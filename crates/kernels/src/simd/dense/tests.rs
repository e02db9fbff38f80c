//! Every kernel at every level against plain double-precision code.

use proptest::prelude::*;

use super::attention::softmax;
use super::{Activation, AttentionScratch, Linear, add_layer_norm, attention};
use crate::simd::Cpu;

/// Values in [-1, 1] that depend on the seed alone (a xorshift generator), at an address that is
/// not a multiple of a vector's size.
struct Values(Vec<f32>);

impl Values {
    fn new(seed: u64, len: usize) -> Values {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        Values((0..len + 1).map(|_| next()).collect())
    }

    fn unaligned(&self) -> &[f32] {
        &self.0[1..]
    }

    fn unaligned_mut(&mut self) -> &mut [f32] {
        &mut self.0[1..]
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
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

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

fn check_linear(seed: u64, rows: usize, inputs: usize, outputs: usize, activation: Activation) {
    let x = Values::new(seed, rows * inputs);
    let weights = Values::new(seed + 1, outputs * inputs);
    let bias = Values::new(seed + 2, outputs);
    let linear = Linear::pack(weights.unaligned(), bias.unaligned(), inputs);
    assert_eq!((linear.inputs(), linear.outputs()), (inputs, outputs));
    for cpu in Cpu::each_level() {
        let mut y = Values(vec![f32::NAN; rows * outputs + 1]);
        linear.apply(cpu, x.unaligned(), activation, y.unaligned_mut());
        for (row, y) in y.unaligned().chunks_exact(outputs).enumerate() {
            let x = wide(&x.unaligned()[row * inputs..][..inputs]);
            for (output, &found) in y.iter().enumerate() {
                let weights = wide(&weights.unaligned()[output * inputs..][..inputs]);
                let sum: f64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
                let sum = sum + f64::from(bias.unaligned()[output]);
                let expected = if activation == Activation::Gelu { gelu(sum) } else { sum };
                let tolerance = 1e-5 * (norm(x.iter().copied()) * norm(weights)).max(1.0);
                assert!(
                    (f64::from(found) - expected).abs() <= tolerance,
                    "{:?}, seed {seed}, {rows} x {inputs} x {outputs}, row {row}, output {output}: \
                     found {found}, expected {expected}",
                    cpu.level()
                );
            }
        }
    }
}

#[test]
fn a_linear_layer_is_a_product_at_awkward_shapes() {
    for rows in (0..=14).chain([24, 25]) {
        for (inputs, outputs) in [(1, 1), (3, 31), (16, 32), (33, 33), (130, 70)] {
            check_linear(7, rows, inputs, outputs, Activation::Identity);
        }
    }
    check_linear(7, 13, 48, 40, Activation::Gelu);
}

#[test]
fn gelu_keeps_its_bound() {
    // Through a layer that passes its input on, on a grid finer than any feature of the function.
    let linear = Linear::pack(&[1.0], &[0.0], 1);
    let x: Vec<f32> = (-400_000..=400_000).map(|i| i as f32 * 4e-5).collect();
    for cpu in Cpu::each_level() {
        let mut y = vec![0.0; x.len()];
        linear.apply(cpu, &x, Activation::Gelu, &mut y);
        for (&x, &found) in x.iter().zip(&y) {
            let error = (f64::from(found) - gelu(f64::from(x))).abs();
            let bound = 2e-7 * f64::from(x.abs()).max(1.0);
            assert!(error <= bound, "{:?}: gelu({x}) is off by {error}", cpu.level());
        }
    }
}

#[test]
fn special_values_stay_in_their_row() {
    let (inputs, outputs) = (5, 33);
    let linear = Linear::pack(&vec![1.0; inputs * outputs], &vec![0.0; outputs], inputs);
    for cpu in Cpu::each_level() {
        for activation in [Activation::Identity, Activation::Gelu] {
            let mut x = vec![0.5; 5 * inputs];
            x[inputs] = f32::NAN;
            x[2 * inputs] = f32::INFINITY;
            x[3 * inputs] = f32::NEG_INFINITY;
            let mut y = vec![0.0; 5 * outputs];
            linear.apply(cpu, &x, activation, &mut y);
            let rows: Vec<_> = y.chunks_exact(outputs).collect();
            assert!(rows[0].iter().chain(rows[4]).all(|y| (2.4..2.6).contains(y)), "{activation:?}");
            assert!(rows[1].iter().all(|y| y.is_nan()), "{activation:?}");
            assert!(rows[2].iter().all(|&y| y == f32::INFINITY), "{activation:?}");
            match activation {
                Activation::Identity => assert!(rows[3].iter().all(|&y| y == f32::NEG_INFINITY)),
                Activation::Gelu => assert!(rows[3].iter().all(|y| y.abs() < f32::MIN_POSITIVE)),
            }
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_in_company() {
    let (inputs, outputs, rows) = (70, 45, 29);
    let linear =
        Linear::pack(&Values::new(1, inputs * outputs).0[1..], &Values::new(2, outputs).0[1..], inputs);
    let x = Values::new(3, inputs * rows);
    for cpu in Cpu::each_level() {
        let mut together = vec![0.0; rows * outputs];
        linear.apply(cpu, x.unaligned(), Activation::Gelu, &mut together);
        for (x, expected) in x.unaligned().chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
            let mut alone = vec![0.0; outputs];
            linear.apply(cpu, x, Activation::Gelu, &mut alone);
            assert_eq!(alone, expected, "{:?}", cpu.level());
        }
    }
}

fn check_layer_norm(seed: u64, rows: usize, width: usize) {
    let x = Values::new(seed, rows * width);
    let delta = Values::new(seed + 1, rows * width);
    let (gamma, beta) = (Values::new(seed + 2, width), Values::new(seed + 3, width));
    let eps = 1e-5;
    for cpu in Cpu::each_level() {
        let mut found = Values(x.0.clone());
        add_layer_norm(
            cpu,
            found.unaligned_mut(),
            delta.unaligned(),
            gamma.unaligned(),
            beta.unaligned(),
            eps,
        );
        for row in 0..rows {
            let range = row * width..(row + 1) * width;
            let sum: Vec<f64> = wide(&x.unaligned()[range.clone()])
                .iter()
                .zip(wide(&delta.unaligned()[range.clone()]))
                .map(|(x, delta)| x + delta)
                .collect();
            let mean = sum.iter().sum::<f64>() / width as f64;
            let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            for (i, &found) in found.unaligned()[range].iter().enumerate() {
                let normalised = (sum[i] - mean) / (variance + f64::from(eps)).sqrt();
                let expected = normalised * f64::from(gamma.unaligned()[i]) + f64::from(beta.unaligned()[i]);
                // Where a row hardly varies, rounding of the mean is blown up by 1 / sqrt(eps).
                let tolerance = 1e-5 * (1.0 + 1.0 / (variance + f64::from(eps)).sqrt());
                assert!(
                    (f64::from(found) - expected).abs() <= tolerance,
                    "{:?}, seed {seed}, width {width}: value {i} is {found}, expected {expected}",
                    cpu.level()
                );
            }
        }
    }
}

#[test]
fn layer_norm_at_awkward_widths() {
    for width in (1..=34).chain([63, 64, 65, 384]) {
        check_layer_norm(11, 3, width);
    }
    check_layer_norm(11, 0, 5);
}

#[test]
fn layer_norm_keeps_nan_in_its_row() {
    for cpu in Cpu::each_level() {
        let width = 19;
        let mut x = vec![1.0; 2 * width];
        x[3] = 2.0;
        x[width] = f32::NAN;
        add_layer_norm(cpu, &mut x, &vec![0.0; 2 * width], &vec![1.0; width], &vec![0.0; width], 1e-5);
        assert!(x[..width].iter().all(|value| value.is_finite()));
        assert!(x[width..].iter().all(|value| value.is_nan()));
    }
}

#[test]
fn exp_within_softmax_keeps_its_bound() {
    // Softmax of (0, x) holds e^x as the ratio of its two values.
    for cpu in Cpu::each_level() {
        for i in 0..=80_000 {
            let x = -(i as f32) * 1e-3;
            let mut row = [0.0, x, f32::NAN, f32::NAN];
            softmax(cpu, &mut row, 4, 2, 1.0);
            let found = f64::from(row[1]) / f64::from(row[0]);
            let expected = f64::from(x).exp();
            assert!(
                (found / expected - 1.0).abs() <= 3e-7 + 1.2e-7,
                "{:?}: exp({x}) found {found}, expected {expected}",
                cpu.level()
            );
            assert_eq!(row[2..], [0.0; 2]);
        }
    }
}

#[test]
fn softmax_of_special_values() {
    for cpu in Cpu::each_level() {
        for len in 1..=40 {
            let mut row = vec![f32::NEG_INFINITY; 40];
            row[len - 1] = -3.0;
            softmax(cpu, &mut row, 40, len, 0.5);
            assert_eq!(row[len - 1], 1.0, "all weight on the only finite score");
            assert!(row.iter().filter(|&&p| p != 0.0 && p != 1.0).all(|&p| p < 2e-38));
            row.fill(1.0);
            row[len / 2] = f32::NAN;
            softmax(cpu, &mut row, 40, len, 0.5);
            assert!(row[..len].iter().all(|p| p.is_nan()), "{:?}: {row:?}", cpu.level());
        }
    }
}

fn check_attention(seed: u64, tokens: usize, heads: usize, depth: usize) {
    let width = heads * depth;
    let qkv = Values::new(seed, tokens * 3 * width);
    let row = |token: usize, part: usize, head: usize| {
        wide(&qkv.unaligned()[token * 3 * width + part * width + head * depth..][..depth])
    };
    let mut expected = vec![0.0; tokens * width];
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
                    expected[token * width + head * depth + d] += weight / total * value;
                }
            }
        }
    }
    for cpu in Cpu::each_level() {
        let mut out = Values(vec![f32::NAN; tokens * width + 1]);
        // What an earlier, longer sequence left in the scratch must not show.
        let mut scratch = AttentionScratch::default();
        let longer = vec![f32::NAN; (tokens + 40) * 3 * width];
        attention(cpu, &longer, width, heads, &mut vec![0.0; (tokens + 40) * width], &mut scratch);
        attention(cpu, qkv.unaligned(), width, heads, out.unaligned_mut(), &mut scratch);
        for (i, (&found, expected)) in out.unaligned().iter().zip(&expected).enumerate() {
            assert!(
                (f64::from(found) - expected).abs() <= 1e-5,
                "{:?}, seed {seed}, {tokens} tokens, {heads} x {depth}: value {i} is {found}, expected \
                 {expected}",
                cpu.level()
            );
        }
    }
}

#[test]
fn attention_at_awkward_shapes() {
    for tokens in [0, 1, 2, 7, 12, 13, 31, 32, 33, 65] {
        for (heads, depth) in [(1, 1), (3, 5), (2, 32), (1, 33), (1, 64)] {
            check_attention(5, tokens, heads, depth);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn linear_of_any_shape(
        seed in any::<u32>(), rows in 0usize..20, inputs in 1usize..1025, outputs in 1usize..100
    ) {
        check_linear(seed.into(), rows, inputs, outputs, Activation::Identity);
    }

    #[test]
    fn gelu_of_any_shape(
        seed in any::<u32>(), rows in 0usize..20, inputs in 1usize..40, outputs in 1usize..1025
    ) {
        check_linear(seed.into(), rows, inputs, outputs, Activation::Gelu);
    }

    #[test]
    fn layer_norm_of_any_width(seed in any::<u32>(), rows in 0usize..5, width in 1usize..1025) {
        check_layer_norm(seed.into(), rows, width);
    }

    #[test]
    fn attention_of_any_shape(
        seed in any::<u32>(), tokens in 0usize..80, heads in 1usize..4, depth in 1usize..70
    ) {
        check_attention(seed.into(), tokens, heads, depth);
    }
}
