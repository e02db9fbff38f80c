use proptest::prelude::*;

use super::{
    CodeQuery, CodeRow, CodeWidth, Cpu, DIM_MAX, Measure, RESIDUAL_STEPS, decode, encode, is_valid,
    row_bytes, score, score_with_residuals,
};

const WIDTHS: [CodeWidth; 2] = [CodeWidth::Bits8, CodeWidth::Bits4];
const MEASURES: [Measure; 2] = [Measure::InnerProduct, Measure::SquaredL2];

fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (((*state >> 33) ^ *state) % 65_536) as f32 / 32_768.0 - 1.0
}

/// Random values within `spread` of `middle`.
fn values(dim: usize, middle: f32, spread: f32, state: &mut u64) -> Vec<f32> {
    (0..dim).map(|_| middle + spread * random(state)).collect()
}

fn query_of(width: CodeWidth, values: &[f32]) -> CodeQuery {
    let mut query = CodeQuery::default();
    query.set_values(width, values);
    query
}

/// The measure in double precision.
fn naive(measure: Measure, a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    match measure {
        Measure::InnerProduct => pairs.map(|(a, b)| a * b).sum(),
        Measure::SquaredL2 => pairs.map(|(a, b)| (a - b) * (a - b)).sum(),
    }
}

/// The values that the codes of a row represent without residuals.
fn coarse(width: CodeWidth, row: &[u8]) -> Vec<f32> {
    let residuals = CodeRow::from_bytes(width, row).residuals.len();
    let mut row = row.to_vec();
    let levels = row.len() - residuals;
    row[levels..].fill(0);
    decoded(width, &row)
}

fn decoded(width: CodeWidth, row: &[u8]) -> Vec<f32> {
    let mut values = Vec::new();
    decode(width, CodeRow::from_bytes(width, row), &mut values);
    values
}

#[test]
fn decoding_is_accurate_to_half_a_step_with_and_without_residuals() {
    let mut state = 1;
    let lengths = (1..130).chain([255, 256, 257, 384, 1000, DIM_MAX]);
    for (dim, width) in lengths.flat_map(|dim| WIDTHS.map(|width| (dim, width))) {
        for (middle, spread) in
            [(0.0, 0.1), (1000.0, 1.0), (-3.0, 0.0), (0.0, 1e18), (0.0, 1e-38), (1e18, 1e18)]
        {
            let values = values(dim, middle, spread, &mut state);
            let row = encode(width, &values);
            assert!(row.len() == row_bytes(width, dim) && is_valid(width, CodeRow::from_bytes(width, &row)));
            let (min, max) = values
                .iter()
                .fold((f32::MAX, f32::MIN), |(min, max), &v| (f32::min(min, v), f32::max(max, v)));
            let range = f64::from(max) - f64::from(min);
            let step = range / f64::from(width.code_max());
            let rounding = f64::from(min.abs().max(max.abs())) * 2e-7 + 1e-38;
            let (stored, coarse) = (decoded(width, &row), coarse(width, &row));
            for ((&value, &fine), &coarse) in values.iter().zip(&stored).zip(&coarse) {
                let error = |stored: f32| (f64::from(stored) - f64::from(value)).abs();
                let case = format!("{width:?} dim {dim}: {coarse}, {fine} for {value}");
                assert!(error(fine) <= step / f64::from(RESIDUAL_STEPS) * 0.51 + rounding, "{case}");
                assert!(error(coarse) <= step * 0.51 + rounding, "{case}");
            }
        }
    }
}

#[test]
fn every_level_agrees_with_double_precision_at_every_length() {
    let lengths = (1..=300).chain([383, 384, 385, 1024, DIM_MAX - 1, DIM_MAX]);
    for (dim, width) in lengths.flat_map(|dim| WIDTHS.map(|width| (dim, width))) {
        let mut state = dim as u64;
        for (middle, spread) in [(0.0, 1.0), (100.0, 1.0)] {
            let rows: Vec<Vec<u8>> =
                (0..3).map(|_| encode(width, &values(dim, middle, spread, &mut state))).collect();
            // Rows start at an odd address: no kernel may rely on alignment.
            let shifted: Vec<Vec<u8>> = rows.iter().map(|row| [&[0], &row[..]].concat()).collect();
            let batch: Vec<CodeRow<'_>> =
                shifted.iter().map(|row| CodeRow::from_bytes(width, &row[1..])).collect();
            let query_values = values(dim, middle, spread, &mut state);
            let query = query_of(width, &query_values);
            for measure in MEASURES {
                // Each integer of the query differs from its value by at most half a step.
                let off = f64::from(spread) / f64::from(width.integer_max()) * (dim as f64).sqrt();
                let size = f64::from(middle + spread).powi(2) * dim as f64;
                let mut first = None;
                for cpu in Cpu::each_level() {
                    let case = format!("{width:?} {measure:?} {cpu:?} dim {dim}");
                    let (mut coarse_score, mut fine) = ([f32::NAN; 3], [f32::NAN; 3]);
                    score(cpu, measure, &query, &batch, &mut coarse_score);
                    score_with_residuals(cpu, measure, &query, &batch, &mut fine);
                    assert_eq!(*first.get_or_insert(coarse_score), coarse_score, "{case}");
                    for ((row, coarse_score), fine) in rows.iter().zip(coarse_score).zip(fine) {
                        let stored = coarse(width, row);
                        let expected = naive(measure, &query_values, &stored);
                        let length = match measure {
                            Measure::InnerProduct => naive(measure, &stored, &stored).sqrt(),
                            Measure::SquaredL2 => 2.0 * expected.sqrt() + off,
                        };
                        let error = (f64::from(coarse_score) - expected).abs();
                        let rounding = 2e-7 * expected.abs() + 1e-4 * off;
                        assert!(error <= off * length + rounding, "{case}: {error}");
                        let error =
                            (f64::from(fine) - naive(measure, &query_values, &decoded(width, row))).abs();
                        assert!(error <= 1e-6 * size, "{case}: fine {error} of {size}");
                    }
                }
            }
        }
    }
}

/// The largest integers: sums must not overflow.
#[test]
fn extremes_do_not_overflow() {
    let lengths = [1, 31, 32, 63, 64, 65, 127, 128, 129, 1024, DIM_MAX];
    for (dim, width) in lengths.into_iter().flat_map(|dim| WIDTHS.map(|width| (dim, width))) {
        let alternating =
            |first: f32| (0..dim).map(|at| if at == 0 { first } else { -first }).collect::<Vec<_>>();
        for (query_values, stored) in [(1.0, 1.0), (1.0, -1.0)] {
            let (query_values, stored) = (alternating(query_values), alternating(stored));
            let row = encode(width, &stored);
            let row = CodeRow::from_bytes(width, &row);
            let mut query_from_row = CodeQuery::default();
            query_from_row.set_row(width, CodeRow::from_bytes(width, &encode(width, &query_values)), true);
            for query in [query_of(width, &query_values), query_from_row] {
                for measure in MEASURES {
                    let expected = naive(measure, &query_values, &stored);
                    for cpu in Cpu::each_level() {
                        let (mut coarse_score, mut fine) = ([0.0], [0.0]);
                        score(cpu, measure, &query, &[row], &mut coarse_score);
                        score_with_residuals(cpu, measure, &query, &[row], &mut fine);
                        for found in [coarse_score[0], fine[0]] {
                            let error = (f64::from(found) - expected).abs();
                            assert!(
                                error <= 2e-3 * dim as f64,
                                "{width:?} {measure:?} {cpu:?} dim {dim}: {found} for {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_values_have_finite_scores() {
    let query_values = [9.2e18, 0.0, 0.0];
    for stored in [[-9.2e18, 0.0, 0.0], [0.0; 3], [9.2e18, 0.0, 0.0]] {
        for (width, measure) in WIDTHS.into_iter().flat_map(|width| MEASURES.map(|measure| (width, measure)))
        {
            let (row, query) = (encode(width, &stored), query_of(width, &query_values));
            let row = CodeRow::from_bytes(width, &row);
            for cpu in Cpu::each_level() {
                let (mut coarse_score, mut fine) = ([0.0], [0.0]);
                score(cpu, measure, &query, &[row], &mut coarse_score);
                score_with_residuals(cpu, measure, &query, &[row], &mut fine);
                assert!(
                    coarse_score[0].is_finite() && fine[0].is_finite(),
                    "{width:?} {measure:?} {cpu:?} {stored:?}"
                );
            }
        }
    }
}

#[test]
fn inconsistent_rows_are_invalid() {
    for width in WIDTHS {
        let row = encode(width, &[0.5, -0.25, 1.0]);
        for (at, byte) in [(3, 0x7f), (7, 0xff), (8, 1), (12, 9), (17, 77)] {
            let mut damaged = row.clone();
            assert_ne!(damaged[at], byte);
            damaged[at] = byte;
            damaged[2] |= if at == 3 { 0x80 } else { 0 };
            assert!(!is_valid(width, CodeRow::from_bytes(width, &damaged)), "{width:?} byte {at}");
        }
    }
}

#[test]
#[should_panic(expected = "as many elements")]
fn rejects_a_row_of_another_dimension() {
    score(
        Cpu::detect(),
        Measure::SquaredL2,
        &query_of(CodeWidth::Bits8, &[1.0, 2.0]),
        &[CodeRow::from_bytes(CodeWidth::Bits8, &encode(CodeWidth::Bits8, &[1.0]))],
        &mut [0.0],
    );
}

#[test]
#[should_panic(expected = "as many elements")]
fn rejects_a_row_of_another_code_width() {
    let values = [1.0, 2.0];
    let row = encode(CodeWidth::Bits4, &values);
    let row = CodeRow::from_bytes(CodeWidth::Bits4, &row);
    score(Cpu::detect(), Measure::SquaredL2, &query_of(CodeWidth::Bits8, &values), &[row], &mut [0.0]);
}

#[test]
#[should_panic(expected = "made with values")]
fn scoring_with_residuals_needs_a_query_with_values() {
    let row = encode(CodeWidth::Bits8, &[1.0, 2.0]);
    let mut query = CodeQuery::default();
    query.set_row(CodeWidth::Bits8, CodeRow::from_bytes(CodeWidth::Bits8, &row), false);
    let row = CodeRow::from_bytes(CodeWidth::Bits8, &row);
    score_with_residuals(Cpu::detect(), Measure::SquaredL2, &query, &[row], &mut [0.0]);
}

proptest! {
    #[test]
    fn a_query_from_a_row_scores_like_one_from_its_values(
        width in prop::sample::select(WIDTHS.to_vec()),
        dim in 1usize..300,
        seed in any::<u64>(),
        middle in -3f32..3.0,
    ) {
        let mut state = seed;
        let query_values = values(dim, middle, 1.0, &mut state);
        let stored = encode(width, &values(dim, middle, 1.0, &mut state));
        let (row, stored) = (encode(width, &query_values), CodeRow::from_bytes(width, &stored));
        let mut query_from_row = CodeQuery::default();
        query_from_row.set_row(width, CodeRow::from_bytes(width, &row), true);
        // At most one step of the query per value, if all are rounded in the same direction.
        let tolerance = 8.2 * dim as f32 / width.integer_max() as f32;
        for measure in MEASURES {
            let (mut a, mut b) = ([0.0], [0.0]);
            score(Cpu::detect(), measure, &query_of(width, &query_values), &[stored], &mut a);
            score(Cpu::detect(), measure, &query_from_row, &[stored], &mut b);
            prop_assert!((a[0] - b[0]).abs() <= tolerance, "{} {}", a[0], b[0]);
        }
    }
}
