//! The BERT encoder (Devlin et al. 2018).

use std::sync::OnceLock;

use kernels::simd::Cpu;

use crate::calibration::Calibration;
use crate::embeddings::Embeddings;
use crate::layer::{Layer, LayerScratch, LayerSmoothing, LayerWeights, resized};
use crate::settings::ModelShape;
use crate::weights::Weights;
use crate::{ComputeType, LoadError};

/// The embeddings, and the layers packed for the kernels.
pub(crate) struct Encoder {
    cpu: Cpu,
    shape: ModelShape,
    embeddings: Embeddings,
    /// The layers for each requested compute type. They are packed at load or later.
    stacks: Vec<(ComputeType, OnceLock<Vec<Layer>>)>,
}

/// Working memory of a forward pass, reused so that it is allocated once per call.
#[derive(Default)]
pub(crate) struct EncoderScratch {
    hidden: Vec<f32>,
    position_rows: Vec<f32>,
    lengths: Vec<usize>,
    layer: LayerScratch,
}

impl Encoder {
    /// Loads the embeddings from `weights`, for all of `computes`. [`Encoder::pack`] loads the layers.
    pub(crate) fn load(
        cpu: Cpu,
        shape: ModelShape,
        weights: &Weights<'_>,
        computes: &[ComputeType],
    ) -> Result<Encoder, LoadError> {
        let embeddings = Embeddings::load(shape, weights, computes)?;
        let mut stacks: Vec<(ComputeType, OnceLock<Vec<Layer>>)> = Vec::new();
        for &compute in computes {
            if stacks.iter().all(|(stack_compute, _)| *stack_compute != compute) {
                stacks.push((compute, OnceLock::new()));
            }
        }
        Ok(Encoder { cpu, shape, embeddings, stacks })
    }

    /// Loads the layers from `weights` and packs them for those of `computes` that were passed to
    /// [`Encoder::load`] and are not packed yet. `calibration` contains the tokens of
    /// [`crate::calibration::TEXTS`].
    pub(crate) fn pack(
        &self,
        weights: &Weights<'_>,
        computes: &[ComputeType],
        calibration: &[Vec<u32>],
    ) -> Result<(), LoadError> {
        let Encoder { cpu, shape, ref embeddings, ref stacks } = *self;
        let (slots, mut packed): (Vec<&OnceLock<_>>, Vec<(ComputeType, Vec<Layer>)>) = stacks
            .iter()
            .filter(|(compute, layers)| computes.contains(compute) && layers.get().is_none())
            .map(|(compute, slot)| (slot, (*compute, Vec::with_capacity(shape.layers))))
            .unzip();
        let mut calibration = packed
            .iter()
            .any(|(compute, _)| *compute == ComputeType::Int8)
            .then(|| Calibration::new(cpu, shape, embeddings, calibration));
        for i in 0..shape.layers {
            // One layer at a time, so that at most one unpacked layer is in memory.
            let layer_weights = LayerWeights::load(weights, &format!("encoder.layer.{i}"), shape)?;
            let smoothing = match &mut calibration {
                Some(calibration) => calibration.run(&layer_weights),
                None => LayerSmoothing::identity(shape),
            };
            for (compute, layers) in &mut packed {
                layers.push(Layer::pack(cpu, *compute, shape, &layer_weights, &smoothing));
            }
        }
        for (slot, (_, layers)) in slots.into_iter().zip(packed) {
            // If another thread has packed them meanwhile, its result is identical.
            slot.get_or_init(|| layers);
        }
        Ok(())
    }

    /// Whether the layers are packed for `compute`.
    pub(crate) fn is_packed(&self, compute: ComputeType) -> bool {
        self.layers(compute).is_some()
    }

    fn layers(&self, compute: ComputeType) -> Option<&[Layer]> {
        let (_, layers) = self.stacks.iter().find(|(stack_compute, _)| *stack_compute == compute)?;
        layers.get().map(Vec::as_slice)
    }

    /// Encodes `texts` and returns the last layer's vectors, one row per token, text after text. Panics
    /// if a text has more tokens than there are positions, if an id is not in the vocabulary, or if the
    /// layers are not packed for `compute`.
    pub(crate) fn encode<'s>(
        &self,
        texts: &[&[u32]],
        compute: ComputeType,
        scratch: &'s mut EncoderScratch,
    ) -> &'s [f32] {
        let layers = self.layers(compute).expect("the model was not loaded for this compute type");
        let (cpu, width) = (self.cpu, self.shape.width);
        let EncoderScratch { hidden, position_rows, lengths, layer: layer_scratch } = scratch;
        lengths.clear();
        lengths.extend(texts.iter().map(|ids| ids.len()));
        let values = lengths.iter().sum::<usize>() * width;
        let (hidden, position_rows) = (resized(hidden, values), resized(position_rows, values));
        let mut first = 0;
        for ids in texts {
            let range = first..first + ids.len() * width;
            let (hidden, position_rows) = (&mut hidden[range.clone()], &mut position_rows[range.clone()]);
            self.embeddings.embed(cpu, compute, ids, hidden, position_rows);
            first = range.end;
        }
        for layer in layers {
            layer.apply(cpu, hidden, lengths, layer_scratch);
        }
        hidden
    }
}
