//! Every kernel at every level against plain double-precision code.

use proptest::prelude::*;

use super::panel::{Columns, WIDTH};
use super::{DenseAttentionScratch, DenseLinear, add_layer_norm, attention, gelu, softmax};
use crate::simd::Cpu;
use crate::simd::oracle::{self, Values, norm, wide};

fn check_linear(seed: u64, rows: usize, inputs: usize, outputs: usize) {
    let x = Values::new(seed, rows * inputs);
    let weights = Values::new(seed + 1, outputs * inputs);
    let bias = Values::new(seed + 2, outputs);
    for cpu in Cpu::each_level() {
        let linear = DenseLinear::pack(cpu, weights.unaligned(), bias.unaligned(), inputs);
        assert_eq!((linear.inputs(), linear.outputs()), (inputs, outputs));
        let mut y = Values(vec![f32::NAN; rows * outputs + 1]);
        linear.apply(cpu, x.unaligned(), y.unaligned_mut());
        for (row, y) in y.unaligned().chunks_exact(outputs).enumerate() {
            let x = wide(&x.unaligned()[row * inputs..][..inputs]);
            for (output, &found) in y.iter().enumerate() {
                let weights = wide(&weights.unaligned()[output * inputs..][..inputs]);
                let sum: f64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
                let expected = sum + f64::from(bias.unaligned()[output]);
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
fn a_linear_layer_is_a_matrix_product_at_odd_shapes() {
    for rows in (0..=14).chain([24, 25]) {
        for (inputs, outputs) in [(1, 1), (3, 31), (16, 32), (33, 33), (130, 70)] {
            check_linear(7, rows, inputs, outputs);
        }
    }
}

#[test]
fn gelu_keeps_its_bound() {
    // On a grid finer than any feature of the function, and of a length that leaves a tail.
    let x: Vec<f32> = (-400_000..=400_000).map(|i| i as f32 * 4e-5).collect();
    for cpu in Cpu::each_level() {
        let mut y = x.clone();
        gelu(cpu, &mut y);
        for (&x, &found) in x.iter().zip(&y) {
            let error = (f64::from(found) - oracle::gelu(f64::from(x))).abs();
            let bound = 2e-7 * f64::from(x.abs()).max(1.0);
            assert!(error <= bound, "{:?}: gelu({x}) is off by {error}", cpu.level());
        }
    }
}

#[test]
fn gelu_of_special_values() {
    for cpu in Cpu::each_level() {
        for len in 3..40 {
            let mut x = vec![1.0; len];
            (x[0], x[len / 2], x[len - 1]) = (f32::INFINITY, f32::NAN, f32::NEG_INFINITY);
            gelu(cpu, &mut x);
            assert_eq!(x[0], f32::INFINITY);
            assert!(x[len / 2].is_nan());
            assert!(x[len - 1].abs() < f32::MIN_POSITIVE, "{:?}: {}", cpu.level(), x[len - 1]);
        }
    }
}

#[test]
fn special_values_stay_in_their_row() {
    let (inputs, outputs) = (5, 33);
    for cpu in Cpu::each_level() {
        let linear = DenseLinear::pack(cpu, &vec![1.0; inputs * outputs], &vec![0.0; outputs], inputs);
        let mut x = vec![0.5; 4 * inputs];
        x[inputs] = f32::NAN;
        x[2 * inputs] = f32::INFINITY;
        let mut y = vec![0.0; 4 * outputs];
        linear.apply(cpu, &x, &mut y);
        let rows: Vec<_> = y.chunks_exact(outputs).collect();
        assert!(rows[0].iter().chain(rows[3]).all(|y| (2.4..2.6).contains(y)));
        assert!(rows[1].iter().all(|y| y.is_nan()));
        assert!(rows[2].iter().all(|&y| y == f32::INFINITY));
    }
}

#[test]
fn the_result_of_a_row_does_not_depend_on_other_rows() {
    let (inputs, outputs, rows) = (70, 45, 29);
    let (weights, bias) = (Values::new(1, inputs * outputs), Values::new(2, outputs));
    let x = Values::new(3, inputs * rows);
    for cpu in Cpu::each_level() {
        let linear = DenseLinear::pack(cpu, weights.unaligned(), bias.unaligned(), inputs);
        let mut together = vec![0.0; rows * outputs];
        linear.apply(cpu, x.unaligned(), &mut together);
        for (x, expected) in x.unaligned().chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
            let mut alone = vec![0.0; outputs];
            linear.apply(cpu, x, &mut alone);
            assert_eq!(alone, expected, "{:?}", cpu.level());
        }
    }
}

fn check_layer_norm(seed: u64, rows: usize, width: usize) {
    let x = Values::new(seed, rows * width);
    let delta = Values::new(seed + 1, rows * width);
    let (gamma, beta) = (Values::new(seed + 2, width), Values::new(seed + 3, width));
    let eps = 1e-5;
    let mut of_scalar: Option<Vec<f32>> = None;
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
        let of_scalar = of_scalar.get_or_insert_with(|| found.0.clone());
        assert_eq!(*of_scalar, found.0, "{:?}, seed {seed}, width {width}: not the same bits", cpu.level());
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
                // In a row of almost equal values, the rounding error of the mean is multiplied by 1 / sqrt(eps).
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
fn layer_norm_is_accurate_at_odd_widths() {
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
        for i in 0..=80_000 / WIDTH {
            let mut rows = [Columns::ZERO; 2];
            let x: [f32; WIDTH] = std::array::from_fn(|lane| -((i * WIDTH + lane) as f32) * 1e-3);
            rows[1].0 = x;
            softmax(cpu, &mut rows, WIDTH, 1.0);
            for (lane, x) in x.into_iter().enumerate() {
                let found = f64::from(rows[1].0[lane]) / f64::from(rows[0].0[lane]);
                let expected = f64::from(x).exp();
                assert!(
                    (found / expected - 1.0).abs() <= 3e-7 + 1.2e-7,
                    "{:?}: exp({x}) found {found}, expected {expected}",
                    cpu.level()
                );
            }
        }
    }
}

#[test]
fn softmax_is_the_same_at_every_level() {
    let scores = Values::new(13, 40 * WIDTH);
    let mut of_scalar: Option<Vec<f32>> = None;
    for cpu in Cpu::each_level() {
        // Up to 200 apart, so that some weights vanish.
        let scaled: Vec<f32> = scores.unaligned().iter().map(|score| score * 100.0).collect();
        let mut rows = Columns::rows_of(&scaled);
        softmax(cpu, &mut rows, WIDTH, 0.7);
        let found = Columns::flat(&rows).to_vec();
        assert_eq!(*of_scalar.get_or_insert_with(|| found.clone()), found, "{:?}", cpu.level());
    }
}

#[test]
fn softmax_of_special_values() {
    for cpu in Cpu::each_level() {
        for len in 1..=40 {
            for columns in [WIDTH / 2, WIDTH] {
                let mut rows = vec![Columns::ZERO; len];
                for row in &mut rows {
                    row.0.fill(f32::NEG_INFINITY);
                }
                rows[len - 1].0.fill(-3.0);
                rows[len / 2].0[7] = f32::NAN;
                softmax(cpu, &mut rows, columns, 0.5);
                for column in 0..columns {
                    let mut of_column = rows.iter().map(|row| row.0[column]);
                    if column == 7 {
                        assert!(of_column.all(|p| p.is_nan()), "{:?}", cpu.level());
                    } else {
                        assert_eq!(rows[len - 1].0[column], 1.0, "all weight on the only finite score");
                        assert!(of_column.filter(|&p| p != 1.0).all(|p| p < 2e-38));
                    }
                }
            }
        }
    }
}

fn check_attention(seed: u64, tokens: usize, heads: usize, depth: usize) {
    let width = heads * depth;
    let qkv = Values::new(seed, tokens * 3 * width);
    let expected = oracle::attention(qkv.unaligned(), tokens, heads, depth);
    for cpu in Cpu::each_level() {
        let mut out = Values(vec![f32::NAN; tokens * width + 1]);
        // The scratch contains values of an earlier, longer sequence, which must have no effect.
        let mut scratch = DenseAttentionScratch::default();
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
fn attention_is_accurate_at_odd_shapes() {
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
        check_linear(seed.into(), rows, inputs, outputs);
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
