use proptest::prelude::*;

use super::scalar::{bf16_value, f16_value};
use super::{Cpu, Element, Measure, score, score_i8};

const ELEMENTS: [Element; 4] = [Element::F32, Element::F16, Element::Bf16, Element::I8];
const MEASURES: [Measure; 2] = [Measure::InnerProduct, Measure::SquaredL2];

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) ^ *state
}

/// A row of finite random elements and its values.
fn random_row(element: Element, dim: usize, state: &mut u64) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..dim {
        let unit = (random(state) % 65_536) as f32 / 32_768.0 - 1.0;
        match element {
            Element::F32 => {
                bytes.extend(unit.to_le_bytes());
                values.push(unit);
            }
            Element::F16 => {
                // Exponents from subnormal to 2: sign, five bits, ten bits.
                let bits = (random(state) & 0x83ff) as u16 | ((random(state) % 17) as u16) << 10;
                bytes.extend(bits.to_le_bytes());
                values.push(f16_value(bits));
            }
            Element::Bf16 => {
                let bits = (unit.to_bits() >> 16) as u16;
                bytes.extend(bits.to_le_bytes());
                values.push(bf16_value(bits));
            }
            Element::I8 => {
                let value = random(state) as u8 as i8;
                bytes.extend(value.to_le_bytes());
                values.push(f32::from(value));
            }
        }
    }
    (bytes, values)
}

/// The measure in double precision, and the sum of the terms' magnitudes.
fn naive(measure: Measure, query: &[f32], row: &[f32]) -> (f64, f64) {
    let terms = query.iter().zip(row).map(|(&q, &v)| match measure {
        Measure::InnerProduct => f64::from(q) * f64::from(v),
        Measure::SquaredL2 => (f64::from(q) - f64::from(v)).powi(2),
    });
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

#[test]
fn every_half_widens_to_its_arithmetic_value() {
    for bits in 0..=u16::MAX {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let expected = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        let found = f64::from(f16_value(bits));
        assert!(found == sign * expected || (found.is_nan() && expected.is_nan()), "{bits:#06x}: {found}");
    }
}

#[test]
fn every_level_agrees_with_double_precision_at_every_length() {
    for dim in 1..=1025 {
        let mut state = dim as u64;
        for element in ELEMENTS {
            // Rows start at an odd address: no kernel may rely on alignment.
            let rows: Vec<_> = (0..3).map(|_| random_row(element, dim, &mut state)).collect();
            let shifted: Vec<Vec<u8>> = rows.iter().map(|(bytes, _)| [&[0], &bytes[..]].concat()).collect();
            let batch: Vec<&[u8]> = shifted.iter().map(|bytes| &bytes[1..]).collect();
            let query = random_row(Element::F32, dim, &mut state).1;
            for measure in MEASURES {
                for cpu in Cpu::each_level() {
                    let mut out = [f32::NAN; 3];
                    score(cpu, element, measure, &query, &batch, &mut out);
                    for ((_, values), &found) in rows.iter().zip(&out) {
                        let (expected, size) = naive(measure, &query, values);
                        let error = (f64::from(found) - expected).abs();
                        assert!(
                            error <= 1e-6 * size,
                            "{element:?} {measure:?} {cpu:?} dim {dim}: {error} of {size}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn bytes_against_bytes_are_exact_on_every_level() {
    for dim in (1..=1025).chain([4096, super::I8_DIM_MAX]) {
        let mut state = dim as u64;
        let (random_bytes, _) = random_row(Element::I8, dim, &mut state);
        let rows = [random_bytes, vec![0x80; dim], vec![0x7f; dim]];
        let batch: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        for query in rows.iter().map(|row| row.iter().map(|b| b.cast_signed()).collect::<Vec<i8>>()) {
            for measure in MEASURES {
                let expected: Vec<i64> = rows
                    .iter()
                    .map(|row| {
                        let pairs =
                            query.iter().zip(row).map(|(&q, &v)| (i64::from(q), i64::from(v.cast_signed())));
                        pairs
                            .map(
                                |(q, v)| {
                                    if measure == Measure::InnerProduct { q * v } else { (q - v) * (q - v) }
                                },
                            )
                            .sum()
                    })
                    .collect();
                for cpu in Cpu::each_level() {
                    let mut out = [0; 3];
                    score_i8(cpu, measure, &query, &batch, &mut out);
                    assert_eq!(out.map(i64::from).to_vec(), expected, "{measure:?} {cpu:?} dim {dim}");
                }
            }
        }
    }
}

#[test]
fn infinities_and_nan_propagate_to_the_score() {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    for dim in [1, 7, 16, 17, 64, 100] {
        for at in [0, dim - 1] {
            for cpu in Cpu::each_level() {
                for (special, check) in [
                    (f32::INFINITY, f32::is_infinite as fn(f32) -> bool),
                    (f32::NAN, f32::is_nan as fn(f32) -> bool),
                ] {
                    let mut values = vec![1f32; dim];
                    values[at] = special;
                    let row = bytes(&values);
                    for measure in MEASURES {
                        let mut out = [0.0];
                        score(cpu, Element::F32, measure, &vec![0.5; dim], &[&row], &mut out);
                        assert!(check(out[0]), "{measure:?} {cpu:?} dim {dim} at {at}: {}", out[0]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_batch_may_be_empty() {
    for cpu in Cpu::each_level() {
        score(cpu, Element::F32, Measure::SquaredL2, &[1.0], &[], &mut []);
    }
}

#[test]
#[should_panic(expected = "as many elements")]
fn rejects_a_row_of_another_length() {
    score(Cpu::detect(), Element::F16, Measure::InnerProduct, &[1.0, 2.0], &[&[0; 3]], &mut [0.0]);
}

proptest! {
    #[test]
    fn the_score_of_a_row_does_not_depend_on_its_position_in_the_batch(dim in 1usize..300, seed in any::<u64>(), count in 1usize..20) {
        let mut state = seed;
        for element in ELEMENTS {
            let rows: Vec<_> = (0..count).map(|_| random_row(element, dim, &mut state).0).collect();
            let batch: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            let query = random_row(Element::F32, dim, &mut state).1;
            for measure in MEASURES {
                for cpu in Cpu::each_level() {
                    let mut together = vec![0.0; count];
                    score(cpu, element, measure, &query, &batch, &mut together);
                    for (row, &expected) in batch.iter().zip(&together) {
                        let mut alone = [0.0];
                        score(cpu, element, measure, &query, &[*row], &mut alone);
                        prop_assert_eq!(alone[0].to_bits(), expected.to_bits());
                    }
                }
            }
        }
    }
}
