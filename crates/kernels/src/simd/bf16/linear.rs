//! Linear layers.

use super::round::{Bf16Rows, round};
use super::tile::{PairTile, Pairs, multiply, rows_max};
use crate::simd::Cpu;
use crate::simd::dense::{Activation, Columns, WIDTH, blocks, pack_rows_as_columns};

/// A linear layer with a preceding activation, `y = activation(x) Wᵀ + b`, with `W` and
/// `activation(x)` rounded to bfloat16, its weights packed once for all products.
///
/// The layout of packed weights is the same at every [`Level`](crate::simd::Level).
pub struct Bf16Linear {
    /// A panel for each [`WIDTH`] outputs, each half of `inputs` deep, rounded up.
    panels: Vec<Pairs>,
    /// The bias, one row per panel.
    bias: Vec<Columns>,
    inputs: usize,
    outputs: usize,
}

/// Working memory of [`Bf16Linear::apply`], kept by the caller so that it is allocated once for many calls.
#[derive(Debug, Default)]
pub struct Bf16LinearScratch {
    rounded: Bf16Rows,
}

impl Bf16Linear {
    /// Rounds and packs `weights`, `bias.len()` rows of `inputs` values (one per output, as in
    /// PyTorch). Panics unless the lengths agree.
    pub fn pack(cpu: Cpu, weights: &[f32], bias: &[f32], inputs: usize) -> Bf16Linear {
        let outputs = bias.len();
        assert!(inputs > 0 && outputs > 0, "a linear layer has inputs and outputs");
        assert_eq!(weights.len(), inputs * outputs, "weights are outputs x inputs");
        let mut rounded = Bf16Rows::default();
        round(cpu, weights, inputs, Activation::Identity, &mut rounded);
        let depth = Bf16Rows::stride(inputs);
        let mut panels = vec![Pairs::ZERO; outputs.div_ceil(WIDTH) * depth];
        pack_rows_as_columns(cpu, &rounded.pairs, outputs, depth, depth, &mut panels);
        Bf16Linear { panels, bias: Columns::rows_of(bias), inputs, outputs }
    }

    /// Values per input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values per output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = activation(x) Wᵀ + b` for rows of `x` ([`Bf16Linear::inputs`] values each) and `y`
    /// ([`Bf16Linear::outputs`] each); for GELU see [`Activation::Gelu`]. Panics unless both have the
    /// same number of whole rows.
    pub fn apply(
        &self,
        cpu: Cpu,
        x: &[f32],
        activation: Activation,
        y: &mut [f32],
        scratch: &mut Bf16LinearScratch,
    ) {
        let rows = x.len() / self.inputs;
        assert_eq!(x.len(), rows * self.inputs, "x must be whole rows");
        assert_eq!(y.len(), rows * self.outputs, "y must have as many rows as x");
        let rounded = &mut scratch.rounded;
        round(cpu, x, self.inputs, activation, rounded);
        let depth = Bf16Rows::stride(self.inputs);
        for (p, (panel, bias)) in self.panels.chunks_exact(depth).zip(&self.bias).enumerate() {
            let first = p * WIDTH;
            for block in blocks(rows, rows_max(cpu)) {
                let tile = PairTile {
                    inputs: &rounded.pairs[block.start * depth..block.end * depth],
                    row_stride: depth,
                    depth_stride: 1,
                    rows: block.len(),
                    panel,
                    bias,
                };
                let out = &mut y[block.start * self.outputs + first..];
                multiply(cpu, &tile, out, self.outputs, WIDTH.min(self.outputs - first));
            }
        }
    }
}

impl std::fmt::Debug for Bf16Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the millions of weights.
        f.debug_struct("Bf16Linear")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}
