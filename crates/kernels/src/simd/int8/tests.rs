//! Bytes and integer sums at every level against plain code, results against double precision.

use proptest::prelude::*;

use super::quantize::{Adjustment, GROUP, QuantizedRows, quantize};
use super::{Int8Linear, Int8LinearScratch};
use crate::simd::Cpu;
use crate::simd::dense::{Activation, polynomial_gelu};
use crate::simd::oracle::{self, Values};

/// The processor limited to the scalar level.
fn scalar() -> Cpu {
    Cpu::each_level().next().expect("every machine has the scalar level")
}

/// Positive factors that are whole powers of two, so that they scale exactly.
fn factors(inputs: usize) -> Vec<f32> {
    (0..inputs).map(|input| [0.5, 1.0, 2.0][input % 3]).collect()
}

fn shifts(inputs: usize) -> Vec<f32> {
    (0..inputs).map(|input| [0.25, 0.0, -2.0, 0.0][input % 4]).collect()
}

/// No adjustment.
fn plain(inputs: usize) -> Adjustment {
    Adjustment::new(&vec![0.0; inputs], &vec![1.0; inputs])
}

fn check_bytes(seed: u64, rows: usize, inputs: usize) {
    let x = Values::new(seed, rows * inputs);
    let (shifts, factors) = (shifts(inputs), factors(inputs));
    let adjustment = Adjustment::new(&shifts, &factors);
    for cpu in Cpu::each_level() {
        let mut quantized = QuantizedRows::default();
        let identity = Activation::Identity;
        quantize(cpu, x.unaligned(), inputs, &adjustment, identity, &mut quantized);
        for row in 0..rows {
            let adjusted = x.unaligned()[row * inputs..].iter().zip(&shifts).zip(&factors);
            let expected: Vec<f32> = adjusted.map(|((x, shift), factor)| (x - shift) * factor).collect();
            for (group, expected) in expected.chunks(GROUP).enumerate() {
                let min = expected.iter().copied().fold(f32::INFINITY, f32::min);
                let max = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let found = quantized.rows(row..row + 1, group);
                assert_eq!(found.minima, [min], "{cpu:?}, seed {seed}, {inputs} inputs, group {group}");
                assert_eq!(found.scales, [(max - min) / 255.0]);
                for (input, (&expected, &byte)) in expected.iter().zip(found.values).enumerate() {
                    let value = min + found.scales[0] * f32::from(byte);
                    assert!(
                        (value - expected).abs() <= 0.501 * found.scales[0],
                        "{cpu:?}, seed {seed}, {inputs} inputs, group {group}, input {input}: {value} for \
                         {expected}"
                    );
                }
            }
        }
        let mut of_scalar = QuantizedRows::default();
        quantize(scalar(), x.unaligned(), inputs, &adjustment, identity, &mut of_scalar);
        for row in 0..rows {
            let (found, expected) = (quantized.rows(row..row + 1, 0), of_scalar.rows(row..row + 1, 0));
            assert_eq!(found.values[..inputs], expected.values[..inputs], "{cpu:?}, seed {seed}, row {row}");
        }
    }
}

/// Weights and inputs that bytes represent exactly, so the result of the layer is exact.
fn check_exact_sums(seed: u64, rows: usize, inputs: usize, outputs: usize) {
    let whole = |seed, len, max: f32| -> Vec<f32> {
        Values::new(seed, len).unaligned().iter().map(|value| (value * max).round()).collect()
    };
    let mut weights = whole(seed, outputs * inputs, 127.0);
    let mut x: Vec<f32> = whole(seed + 1, rows * inputs, 127.0).iter().map(|value| value + 128.0).collect();
    // Every group of every row and output uses its whole range, the worst case for sums of bytes included.
    if rows > 1 {
        x[inputs..2 * inputs].fill(255.0);
        weights[..inputs].fill(127.0);
    }
    for group in weights.chunks_exact_mut(inputs).flat_map(|row| row.chunks_mut(GROUP)) {
        group[0] = if group[0] < 0.0 { -127.0 } else { 127.0 };
    }
    for group in x.chunks_exact_mut(inputs).flat_map(|row| row.chunks_mut(GROUP)) {
        (group[0], group[group.len() - 1]) = (255.0, 0.0);
    }
    let bias = whole(seed + 2, outputs, 1000.0);
    let linear = Int8Linear::pack(&weights, &bias, inputs, &vec![0.0; inputs], &vec![1.0; inputs]);
    assert_eq!((linear.inputs(), linear.outputs()), (inputs, outputs));
    for cpu in Cpu::each_level() {
        let mut y = vec![f32::NAN; rows * outputs];
        linear.apply(cpu, &x, Activation::Identity, &mut y, &mut Int8LinearScratch::default());
        for (row, y) in y.chunks_exact(outputs).enumerate() {
            for (output, &found) in y.iter().enumerate() {
                let products = x[row * inputs..][..inputs].iter().zip(&weights[output * inputs..]);
                let sum: i64 = products.map(|(&x, &weight)| x as i64 * weight as i64).sum();
                let expected = sum as f32 + bias[output];
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                    "{cpu:?}, seed {seed}, {rows} x {inputs} x {outputs}, row {row}, output {output}: \
                     found {found}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn rows_become_the_same_bytes_at_every_level() {
    for inputs in (1..=50).chain([383, 384, 385]) {
        check_bytes(3, 3, inputs);
    }
}

#[test]
fn sums_are_exact_at_odd_shapes() {
    for rows in (0..=14).chain([24, 25]) {
        for (inputs, outputs) in [(2, 1), (3, 31), (4, 32), (17, 33), (130, 70), (1536, 32)] {
            check_exact_sums(5, rows, inputs, outputs);
        }
    }
}

#[test]
fn rows_without_range_are_exact() {
    let (inputs, outputs) = (37, 3);
    let weights = Values::new(1, inputs * outputs);
    let linear =
        Int8Linear::pack(weights.unaligned(), &[0.25; 3], inputs, &vec![0.0; inputs], &vec![1.0; inputs]);
    for cpu in Cpu::each_level() {
        for value in [0.0, -3.5, 1e-20] {
            let mut y = [f32::NAN; 3];
            linear.apply(
                cpu,
                &vec![value; inputs],
                Activation::Identity,
                &mut y,
                &mut Int8LinearScratch::default(),
            );
            for (weights, &found) in weights.unaligned().chunks_exact(inputs).zip(&y) {
                let sum: f32 = weights.iter().sum();
                assert!((found - (value * sum + 0.25)).abs() <= 0.05 * value.abs() * 6.0, "{cpu:?}: {found}");
            }
        }
    }
}

#[test]
fn the_only_error_is_the_rounding_of_weights_and_inputs() {
    let (rows, inputs, outputs) = (5, 384, 40);
    let x = Values::new(1, rows * inputs);
    let weights = Values::new(2, outputs * inputs);
    let bias = Values::new(3, outputs);
    let linear =
        Int8Linear::pack(weights.unaligned(), bias.unaligned(), inputs, &shifts(inputs), &factors(inputs));
    for cpu in Cpu::each_level() {
        for activation in [Activation::Identity, Activation::Gelu] {
            let mut y = vec![f32::NAN; rows * outputs];
            linear.apply(cpu, x.unaligned(), activation, &mut y, &mut Int8LinearScratch::default());
            for (i, &found) in y.iter().enumerate() {
                let x = oracle::wide(&x.unaligned()[i / outputs * inputs..][..inputs]);
                let x =
                    x.into_iter().map(|x| if activation == Activation::Gelu { oracle::gelu(x) } else { x });
                let weights = oracle::wide(&weights.unaligned()[i % outputs * inputs..][..inputs]);
                let sum: f64 = x.zip(weights).map(|(x, w)| x * w).sum();
                let expected = sum + f64::from(bias.unaligned()[i % outputs]);
                // 384 products, each off by up to a step of 4/255 of one factor and 2/127 of the other, at random.
                assert!((f64::from(found) - expected).abs() <= 1.0, "{cpu:?}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn layers_are_the_same_at_every_level() {
    let (rows, inputs, outputs) = (13, 777, 70);
    let x: Vec<f32> = Values::new(9, rows * inputs).unaligned().iter().map(|x| x * 6.0).collect();
    let (weights, bias) = (Values::new(10, outputs * inputs), Values::new(11, outputs));
    let shifts = Values::new(12, inputs);
    let factors: Vec<f32> = Values::new(13, inputs).unaligned().iter().map(|factor| factor + 1.01).collect();
    let linear =
        Int8Linear::pack(weights.unaligned(), bias.unaligned(), inputs, shifts.unaligned(), &factors);
    for activation in [Activation::Identity, Activation::Gelu] {
        let apply = |cpu| {
            let mut y = vec![0.0; rows * outputs];
            linear.apply(cpu, &x, activation, &mut y, &mut Int8LinearScratch::default());
            y
        };
        let expected = apply(scalar());
        for cpu in Cpu::each_level() {
            assert_eq!(apply(cpu), expected, "{cpu:?}, {activation:?}");
        }
    }
}

#[test]
fn the_error_of_polynomial_gelu_is_bounded() {
    // In a row of one value and zero, GELU of the value is the maximum or the minimum of the range.
    let adjustment = plain(3);
    for cpu in Cpu::each_level() {
        for i in -120_000..=120_000 {
            let x = i as f32 * 1e-4;
            let bound = 3e-5 + 5e-6 * f64::from(x.abs());
            let expected = oracle::gelu(x.into());
            let error = (f64::from(polynomial_gelu(x)) - expected).abs();
            assert!(error <= bound, "scalar: {x} is off by {error}");
            let mut quantized = QuantizedRows::default();
            quantize(cpu, &[x, 0.0, 0.0], 3, &adjustment, Activation::Gelu, &mut quantized);
            let row = quantized.rows(0..1, 0);
            let end = if row.values[0] == 0 { row.minima[0] } else { row.minima[0] + 255.0 * row.scales[0] };
            let error = (f64::from(end) - expected).abs();
            assert!(error <= bound + 1e-6, "{cpu:?}: {x} is off by {error}");
        }
    }
}

#[test]
fn the_result_of_a_row_does_not_depend_on_other_rows() {
    let (inputs, outputs, rows) = (70, 45, 29);
    let (weights, bias) = (Values::new(1, inputs * outputs), Values::new(2, outputs));
    let linear =
        Int8Linear::pack(weights.unaligned(), bias.unaligned(), inputs, &shifts(inputs), &factors(inputs));
    let x = Values::new(3, inputs * rows);
    for cpu in Cpu::each_level() {
        let mut scratch = Int8LinearScratch::default();
        let mut together = vec![0.0; rows * outputs];
        linear.apply(cpu, x.unaligned(), Activation::Gelu, &mut together, &mut scratch);
        for (x, expected) in x.unaligned().chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
            let mut alone = vec![0.0; outputs];
            linear.apply(cpu, x, Activation::Gelu, &mut alone, &mut scratch);
            assert_eq!(alone, expected, "{cpu:?}");
        }
    }
}

/// The kernel for AVX-VNNI, in the AVX-512 encoding if the processor has only that.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_half_vector_kernel_gives_the_same_sums() {
    use super::tile::{ByteTile, ColumnParams, INPUTS, Panel};
    use crate::simd::dense::WIDTH;

    if !(is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")) {
        eprintln!("SKIPPED: no AVX-512 VNNI here");
        return;
    }
    let (rows, inputs) = (6, 130);
    let x = Values::new(1, rows * inputs);
    let mut quantized = QuantizedRows::default();
    quantize(scalar(), x.unaligned(), inputs, &plain(inputs), Activation::Identity, &mut quantized);
    let panel: Vec<Panel> = (0..inputs.div_ceil(INPUTS))
        .map(|k| {
            Panel(std::array::from_fn(|c| std::array::from_fn(|i| ((k * 31 + c * 7 + i * 3) % 255) as i8)))
        })
        .collect();
    let mut columns = ColumnParams::ZERO;
    columns.scale.fill(1.0);
    for row_count in 1..=rows {
        let tile = ByteTile {
            rows: quantized.rows(0..row_count, 0),
            panel: &panel,
            columns: &columns,
            is_first_group: true,
        };
        let (mut found, mut expected) = (vec![0.0; row_count * WIDTH], vec![0.0; row_count * WIDTH]);
        // SAFETY: the instructions were detected above.
        unsafe { super::avx2::multiply_vnni_of_avx512(&tile, &mut found, WIDTH) };
        super::scalar::multiply(&tile, &mut expected, WIDTH);
        assert_eq!(found, expected, "{row_count} rows");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_are_equal_at_any_shape(seed in any::<u32>(), rows in 0usize..4, inputs in 1usize..1025) {
        check_bytes(seed.into(), rows, inputs);
    }

    #[test]
    fn sums_are_equal_at_any_shape(
        seed in any::<u32>(), rows in 0usize..20, inputs in 2usize..1025, outputs in 1usize..100
    ) {
        check_exact_sums(seed.into(), rows, inputs, outputs);
    }
}
