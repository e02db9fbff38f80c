//! Every kernel at every level against plain double-precision code.

use proptest::prelude::*;

use super::round::{Bf16Rows, round};
use super::{Bf16AttentionScratch, Bf16Linear, Bf16LinearScratch, attention};
use crate::simd::Cpu;
use crate::simd::dense::Activation;
use crate::simd::oracle::{self, Values, norm, wide};

/// Twice the relative error of rounding to eight bits: of one factor of a product and of the other.
const ROUNDING: f64 = 2.0 / 256.0;

/// A row after rounding.
fn rounded(cpu: Cpu, row: &[f32], activation: Activation) -> Vec<f32> {
    let mut rounded = Bf16Rows::default();
    round(cpu, row, row.len(), activation, &mut rounded);
    let both = rounded.pairs.iter().flat_map(|pair| [pair << 16, pair & 0xffff_0000]);
    both.take(row.len()).map(f32::from_bits).collect()
}

#[test]
fn rounding_is_to_the_nearest_even_at_every_level() {
    let steps = [0x3f80_0000, 0x3f80_7fff, 0x3f80_8000, 0x3f80_8001, 0x3f81_8000, 0xc2ff_ffff, 0x7f7f_ffff];
    let expected = [0x3f80, 0x3f80, 0x3f80, 0x3f81, 0x3f82, 0xc300, 0x7f80];
    let (bits, of_bits): (Vec<u32>, Vec<u32>) = steps.into_iter().zip(expected).cycle().take(77).unzip();
    for cpu in Cpu::each_level() {
        for len in 1..=bits.len() {
            let row: Vec<f32> = bits[..len].iter().copied().map(f32::from_bits).collect();
            let found = rounded(cpu, &row, Activation::Identity);
            let found: Vec<u32> = found.into_iter().map(|value| value.to_bits() >> 16).collect();
            assert_eq!(found, of_bits[..len], "{cpu:?}, {len} values");
        }
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
        let found = rounded(cpu, &special, Activation::Identity);
        assert!(found[0].is_nan());
        assert_eq!(found[1..3], special[1..3]);
        assert_eq!(found[3].to_bits(), (-0.0_f32).to_bits());
        let subnormal = [f32::from_bits(0x007f_ffff), f32::from_bits(0x8000_0001)];
        let found = rounded(cpu, &subnormal.repeat(17), Activation::Identity);
        assert!(found.chunks(2).all(|pair| [pair[0].to_bits(), pair[1].to_bits()] == [0, 0x8000_0000]));
    }
}

fn check_linear(seed: u64, rows: usize, inputs: usize, outputs: usize, activation: Activation) {
    let x = Values::new(seed, rows * inputs);
    let weights = Values::new(seed + 1, outputs * inputs);
    let bias = Values::new(seed + 2, outputs);
    let mut of_scalar: Option<Vec<f32>> = None;
    for cpu in Cpu::each_level() {
        let linear = Bf16Linear::pack(cpu, weights.unaligned(), bias.unaligned(), inputs);
        assert_eq!((linear.inputs(), linear.outputs()), (inputs, outputs));
        let mut y = Values(vec![f32::NAN; rows * outputs + 1]);
        linear.apply(cpu, x.unaligned(), activation, y.unaligned_mut(), &mut Bf16LinearScratch::default());
        let of_scalar = of_scalar.get_or_insert_with(|| y.unaligned().to_vec());
        assert_eq!(
            of_scalar,
            y.unaligned(),
            "{cpu:?}, seed {seed}, {rows} x {inputs} x {outputs}: the bits differ"
        );
        for (row, y) in y.unaligned().chunks_exact(outputs).enumerate() {
            let x = &x.unaligned()[row * inputs..][..inputs];
            let exact: Vec<f64> = wide(x)
                .into_iter()
                .map(|x| if activation == Activation::Gelu { oracle::gelu(x) } else { x })
                .collect();
            let rounded_x = wide(&rounded(cpu, x, activation));
            for (output, &found) in y.iter().enumerate() {
                let weights = &weights.unaligned()[output * inputs..][..inputs];
                let rounded_weights = wide(&rounded(cpu, weights, Activation::Identity));
                let weights = wide(weights);
                let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
                let bias = f64::from(bias.unaligned()[output]);
                let size = norm(exact.iter().copied()) * norm(weights.iter().copied());
                let of_rounded = (f64::from(found) - dot(&rounded_x, &rounded_weights) - bias).abs();
                let of_exact = (f64::from(found) - dot(&exact, &weights) - bias).abs();
                assert!(
                    of_rounded <= 1e-5 * size.max(1.0) && of_exact <= ROUNDING * size.max(1.0),
                    "{cpu:?}, seed {seed}, {rows} x {inputs} x {outputs}, row {row}, output {output}: off by \
                     {of_rounded} from rounded and by {of_exact} from exact factors"
                );
            }
        }
    }
}

#[test]
fn a_linear_layer_is_a_matrix_product_at_odd_shapes() {
    for rows in (0..=14).chain([24, 25]) {
        for (inputs, outputs) in [(1, 1), (3, 31), (16, 32), (33, 33), (130, 70)] {
            check_linear(7, rows, inputs, outputs, Activation::Identity);
        }
    }
    for inputs in [1, 15, 16, 17, 31, 32, 33, 63] {
        check_linear(7, 3, inputs, 5, Activation::Gelu);
    }
}

#[test]
fn special_values_stay_in_their_row() {
    let (inputs, outputs) = (5, 33);
    for cpu in Cpu::each_level() {
        let linear = Bf16Linear::pack(cpu, &vec![1.0; inputs * outputs], &vec![0.0; outputs], inputs);
        let mut x = vec![0.5; 4 * inputs];
        x[inputs] = f32::NAN;
        x[2 * inputs] = f32::INFINITY;
        let mut y = vec![0.0; 4 * outputs];
        linear.apply(cpu, &x, Activation::Identity, &mut y, &mut Bf16LinearScratch::default());
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
        let linear = Bf16Linear::pack(cpu, weights.unaligned(), bias.unaligned(), inputs);
        let mut scratch = Bf16LinearScratch::default();
        let mut together = vec![0.0; rows * outputs];
        linear.apply(cpu, x.unaligned(), Activation::Gelu, &mut together, &mut scratch);
        for (x, expected) in x.unaligned().chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
            let mut alone = vec![0.0; outputs];
            linear.apply(cpu, x, Activation::Gelu, &mut alone, &mut scratch);
            assert_eq!(alone, expected, "{cpu:?}");
        }
    }
}

fn check_attention(seed: u64, tokens: usize, heads: usize, depth: usize) {
    let width = heads * depth;
    let qkv = Values::new(seed, tokens * 3 * width);
    let expected = oracle::attention(qkv.unaligned(), tokens, heads, depth);
    let mut of_scalar: Option<Vec<f32>> = None;
    for cpu in Cpu::each_level() {
        let mut out = Values(vec![f32::NAN; tokens * width + 1]);
        // The scratch contains values of an earlier, longer sequence, which must have no effect.
        let mut scratch = Bf16AttentionScratch::default();
        let longer = vec![f32::NAN; (tokens + 41) * 3 * width];
        attention(cpu, &longer, width, heads, &mut vec![0.0; (tokens + 41) * width], &mut scratch);
        attention(cpu, qkv.unaligned(), width, heads, out.unaligned_mut(), &mut scratch);
        let of_scalar = of_scalar.get_or_insert_with(|| out.unaligned().to_vec());
        // An odd depth is left to single precision, whose products only vector code fuses.
        assert!(
            depth % 2 == 1 || of_scalar == out.unaligned(),
            "{cpu:?}, seed {seed}, {tokens} tokens, {heads} x {depth}: the bits differ"
        );
        for (i, (&found, expected)) in out.unaligned().iter().zip(&expected).enumerate() {
            // Weights sum to one and values are at most one.
            assert!(
                (f64::from(found) - expected).abs() <= 2.0 * ROUNDING,
                "{cpu:?}, seed {seed}, {tokens} tokens, {heads} x {depth}: value {i} is {found}, expected \
                 {expected}"
            );
        }
    }
}

#[test]
fn attention_is_accurate_at_odd_shapes() {
    for tokens in [0, 1, 2, 7, 12, 13, 16, 17, 31, 32, 33, 65] {
        for (heads, depth) in [(1, 1), (3, 5), (3, 8), (2, 32), (1, 34), (1, 64)] {
            check_attention(5, tokens, heads, depth);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn linear_of_any_shape(
        seed in any::<u32>(), rows in 0usize..8, inputs in 1usize..400, outputs in 1usize..70
    ) {
        check_linear(seed.into(), rows, inputs, outputs, Activation::Identity);
    }

    #[test]
    fn gelu_of_any_width(seed in any::<u32>(), rows in 0usize..4, inputs in 1usize..1025) {
        check_linear(seed.into(), rows, inputs, 3, Activation::Gelu);
    }

    #[test]
    fn attention_of_any_shape(
        seed in any::<u32>(), tokens in 0usize..80, heads in 1usize..4, depth in 1usize..70
    ) {
        check_attention(seed.into(), tokens, heads, depth);
    }
}
