//! Linear layers.

use super::quantize::{Adjustment, GROUP, QuantizedRows, quantize};
use super::tile::{ByteTile, ColumnParams, INPUTS, Panel, multiply, rows_max};
use crate::simd::Cpu;
use crate::simd::dense::{Activation, WIDTH, blocks};

/// The largest weight; symmetric, so that the most negative byte is not used.
const WEIGHT_MAX: f32 = 127.0;

/// A linear layer with a preceding activation, `y = activation(x) Wᵀ + b`.
///
/// `W` is stored as `wᵢ = sᵢ qᵢ`, integers `qᵢ` from -127 to 127 and a scale for each output
/// (symmetric, per channel; Jacob et al. 2018). A row of the input becomes `x = s q + l`, `q` from
/// 0 to 255 and `l` its minimum, and `y = s sᵢ Σ q qᵢ + l sᵢ Σ qᵢ + b`. Scales and minima are those
/// of each 384 neighbouring inputs, whose parts of `y` are summed.
///
/// The layout of packed weights is the same at every [`Level`](crate::simd::Level).
pub struct Int8Linear {
    /// A panel for each [`WIDTH`] outputs, each `inputs` deep, rounded up to whole [`INPUTS`].
    panels: Vec<Panel>,
    /// The parameters of the groups of each panel.
    columns: Vec<ColumnParams>,
    adjustment: Adjustment,
    inputs: usize,
    outputs: usize,
}

/// Working memory of [`Int8Linear::apply`], kept by the caller so that it is allocated once for many calls.
#[derive(Debug, Default)]
pub struct Int8LinearScratch {
    quantized: QuantizedRows,
}

impl Int8Linear {
    /// Quantises and packs `weights`, `bias.len()` rows of `inputs` values (one per output, as in
    /// PyTorch).
    ///
    /// `shifts` and `factors`, one per input, make inputs easier to quantise: of input `j`,
    /// `shifts[j]` is subtracted, which goes into the bias, and it is multiplied by `factors[j]`,
    /// which must be positive and by which its weights are divided (Wei et al. 2023, Outlier
    /// Suppression+, section 4.1; Xiao et al. 2023, SmoothQuant, section 4). Panics unless the
    /// lengths agree and there are inputs and outputs.
    pub fn pack(weights: &[f32], bias: &[f32], inputs: usize, shifts: &[f32], factors: &[f32]) -> Int8Linear {
        let outputs = bias.len();
        assert!(inputs > 0 && outputs > 0, "a linear layer has inputs and outputs");
        assert_eq!(weights.len(), inputs * outputs, "weights are outputs x inputs");
        assert!(
            shifts.len() == inputs && factors.len() == inputs,
            "there must be a shift and a factor per input"
        );
        assert!(factors.iter().all(|factor| *factor > 0.0), "factors must be positive");
        let depth = inputs.div_ceil(INPUTS);
        let mut panels = vec![Panel::ZERO; outputs.div_ceil(WIDTH) * depth];
        let groups = inputs.div_ceil(GROUP);
        let mut columns = vec![ColumnParams::ZERO; outputs.div_ceil(WIDTH) * groups];
        let mut row = vec![0.0; inputs];
        let mut quantized = vec![0i8; depth * INPUTS];
        for (output, weights) in weights.chunks_exact(inputs).enumerate() {
            for ((scaled, weight), factor) in row.iter_mut().zip(weights).zip(factors) {
                *scaled = weight / factor;
            }
            let (panel, column) = (output / WIDTH, output % WIDTH);
            let columns = &mut columns[panel * groups..][..groups];
            for ((row, bytes), columns) in
                row.chunks(GROUP).zip(quantized.chunks_mut(GROUP)).zip(&mut *columns)
            {
                let max = row.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
                let scale = max / WEIGHT_MAX;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                let mut sum = 0;
                for (byte, value) in bytes.iter_mut().zip(row) {
                    *byte = round(value * inverse) as i8;
                    sum += i32::from(*byte);
                }
                columns.scale[column] = scale;
                columns.sum[column] = sum as f32 * scale;
            }
            let panel = &mut panels[panel * depth..][..depth];
            for (packed, bytes) in panel.iter_mut().zip(quantized.as_chunks().0) {
                packed.0[column] = *bytes;
            }
            let shifted: f32 = weights.iter().zip(shifts).map(|(weight, shift)| weight * shift).sum();
            columns[0].bias[column] = bias[output] + shifted;
        }
        let adjustment = Adjustment::new(shifts, factors);
        Int8Linear { panels, columns, adjustment, inputs, outputs }
    }

    /// Values per input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values per output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = activation(x) Wᵀ + b` for rows of `x` ([`Int8Linear::inputs`] values each) and `y`
    /// ([`Int8Linear::outputs`] each); for GELU see [`Activation::Gelu`]. Panics unless both have the
    /// same number of whole rows.
    pub fn apply(
        &self,
        cpu: Cpu,
        x: &[f32],
        activation: Activation,
        y: &mut [f32],
        scratch: &mut Int8LinearScratch,
    ) {
        let rows = x.len() / self.inputs;
        assert_eq!(x.len(), rows * self.inputs, "x must be whole rows");
        assert_eq!(y.len(), rows * self.outputs, "y must have as many rows as x");
        let quantized = &mut scratch.quantized;
        quantize(cpu, x, self.inputs, &self.adjustment, activation, quantized);
        let depth = self.inputs.div_ceil(INPUTS);
        let columns = self.columns.chunks_exact(self.inputs.div_ceil(GROUP));
        for (p, (panel, columns)) in self.panels.chunks_exact(depth).zip(columns).enumerate() {
            let first = p * WIDTH;
            for block in blocks(rows, rows_max(cpu)) {
                let groups = panel.chunks(GROUP / INPUTS).zip(columns).enumerate();
                let tiles = groups.map(|(group, (panel, columns))| ByteTile {
                    rows: quantized.rows(block.clone(), group),
                    panel,
                    columns,
                    is_first_group: group == 0,
                });
                let out = &mut y[block.start * self.outputs + first..];
                multiply(cpu, tiles, out, self.outputs, block.len(), WIDTH.min(self.outputs - first));
            }
        }
    }
}

/// Rounds to the nearest integer, ties to even, for `|value| < 2²²`. An addition does the rounding, so the compiler
/// can vectorise it without a rounding instruction.
pub(super) fn round(value: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2²³: a sum with it has no bits below the unit
    (value + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32
}

impl std::fmt::Debug for Int8Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The weights are omitted: there may be millions.
        f.debug_struct("Int8Linear")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}
