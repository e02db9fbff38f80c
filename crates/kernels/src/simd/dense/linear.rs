//! Linear layers.

use super::panel::{Columns, WIDTH, pack_rows_as_columns};
use super::tile::{Tile, blocks, multiply, rows_max};
use crate::simd::Cpu;

/// A linear layer, `y = x Wᵀ + b`, its weights packed once for all products.
///
/// The layout of packed weights is the same at every [`Level`](crate::simd::Level).
pub struct DenseLinear {
    /// A panel for each [`WIDTH`] outputs, each `inputs` deep.
    panels: Vec<Columns>,
    /// The bias, one row per panel.
    bias: Vec<Columns>,
    inputs: usize,
    outputs: usize,
}

impl DenseLinear {
    /// Packs `weights`, `bias.len()` rows of `inputs` values (one per output, as in
    /// PyTorch). Panics unless the lengths agree.
    pub fn pack(cpu: Cpu, weights: &[f32], bias: &[f32], inputs: usize) -> DenseLinear {
        let outputs = bias.len();
        assert!(inputs > 0 && outputs > 0, "a linear layer has inputs and outputs");
        assert_eq!(weights.len(), inputs * outputs, "weights are outputs x inputs");
        let mut panels = vec![Columns::ZERO; outputs.div_ceil(WIDTH) * inputs];
        pack_rows_as_columns(cpu, weights, outputs, inputs, inputs, &mut panels);
        DenseLinear { panels, bias: Columns::rows_of(bias), inputs, outputs }
    }

    /// Values per input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values per output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y = x Wᵀ + b` for rows of `x` ([`DenseLinear::inputs`] values each) and `y`
    /// ([`DenseLinear::outputs`] each). A row of `y` depends only on its row of `x`, bit by bit.
    /// Panics unless both have the same number of whole rows.
    pub fn apply(&self, cpu: Cpu, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.inputs;
        assert_eq!(x.len(), rows * self.inputs, "x must be whole rows");
        assert_eq!(y.len(), rows * self.outputs, "y must have as many rows as x");
        for (p, (panel, bias)) in self.panels.chunks_exact(self.inputs).zip(&self.bias).enumerate() {
            let first = p * WIDTH;
            let columns = WIDTH.min(self.outputs - first);
            for block in blocks(rows, rows_max(cpu)) {
                let tile = Tile {
                    inputs: &x[block.start * self.inputs..block.end * self.inputs],
                    row_stride: self.inputs,
                    depth_stride: 1,
                    rows: block.len(),
                    panel,
                    bias,
                };
                let out = &mut y[block.start * self.outputs + first..];
                multiply(cpu, &tile, out, self.outputs, columns);
            }
        }
    }
}

impl std::fmt::Debug for DenseLinear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The weights are omitted: there may be millions.
        f.debug_struct("DenseLinear")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}
