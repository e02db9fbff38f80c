//! The BERT encoder (Devlin et al. 2018).

use std::sync::OnceLock;

use kernels::simd::Cpu;

use crate::calibration::Calibration;
use crate::embeddings::Embeddings;
use crate::layer::{Layer, LayerSmoothing, Matrices, Scratch as LayerScratch, resized};
use crate::settings::Shape;
use crate::weights::Weights;
use crate::{ComputeType, LoadError};

/// Embeddings and layers, packed for the kernels.
pub(crate) struct Encoder {
    cpu: Cpu,
    shape: Shape,
    embeddings: Embeddings,
    /// The layers in each arithmetic that was asked for, once they are packed.
    stacks: Vec<(ComputeType, OnceLock<Vec<Layer>>)>,
}

/// Memory of a forward pass, kept between passes so that it is allocated once a call.
#[derive(Default)]
pub(crate) struct Scratch {
    hidden: Vec<f32>,
    places: Vec<f32>,
    lengths: Vec<usize>,
    layer: LayerScratch,
}

impl Encoder {
    /// Takes the embeddings out of `weights`, such as each of `computes` needs them. The layers come with
    /// [`Encoder::pack`].
    pub(crate) fn load(
        cpu: Cpu,
        shape: Shape,
        weights: &Weights<'_>,
        computes: &[ComputeType],
    ) -> Result<Encoder, LoadError> {
        let embeddings = Embeddings::load(shape, weights, computes)?;
        let mut stacks: Vec<(ComputeType, OnceLock<Vec<Layer>>)> = Vec::new();
        for &compute in computes {
            if stacks.iter().all(|(known, _)| *known != compute) {
                stacks.push((compute, OnceLock::new()));
            }
        }
        Ok(Encoder { cpu, shape, embeddings, stacks })
    }

    /// Takes the layers out of `weights` and packs them for each of `computes` that was asked for at load
    /// and is not packed yet. `calibration` are the tokens of [`crate::calibration::TEXTS`].
    pub(crate) fn pack(
        &self,
        weights: &Weights<'_>,
        computes: &[ComputeType],
        calibration: &[Vec<u32>],
    ) -> Result<(), LoadError> {
        let Encoder { cpu, shape, ref embeddings, ref stacks } = *self;
        let (places, mut packed): (Vec<&OnceLock<_>>, Vec<(ComputeType, Vec<Layer>)>) = stacks
            .iter()
            .filter(|(compute, layers)| computes.contains(compute) && layers.get().is_none())
            .map(|(compute, place)| (place, (*compute, Vec::with_capacity(shape.layers))))
            .unzip();
        let mut calibration = packed
            .iter()
            .any(|(compute, _)| *compute == ComputeType::Int8)
            .then(|| Calibration::new(cpu, shape, embeddings, calibration));
        for i in 0..shape.layers {
            // One layer at a time, so that only one stands in memory unpacked.
            let matrices = Matrices::load(weights, &format!("encoder.layer.{i}"), shape)?;
            let smoothing = match &mut calibration {
                Some(calibration) => calibration.run(&matrices),
                None => LayerSmoothing::none(shape),
            };
            for (compute, layers) in &mut packed {
                layers.push(Layer::pack(cpu, *compute, shape, &matrices, &smoothing));
            }
        }
        for (place, (_, layers)) in places.into_iter().zip(packed) {
            // Whoever else packed them meanwhile packed the same.
            place.get_or_init(|| layers);
        }
        Ok(())
    }

    /// Whether the layers are packed for `compute`.
    pub(crate) fn is_packed(&self, compute: ComputeType) -> bool {
        self.layers(compute).is_some()
    }

    fn layers(&self, compute: ComputeType) -> Option<&[Layer]> {
        let (_, layers) = self.stacks.iter().find(|(known, _)| *known == compute)?;
        layers.get().map(Vec::as_slice)
    }

    /// The last layer's vectors of `texts`, a row a token, text after text. Panics if a text has
    /// more tokens than there are positions, an id beyond the vocabulary, or the layers are not packed
    /// for `compute`.
    pub(crate) fn encode<'s>(
        &self,
        texts: &[&[u32]],
        compute: ComputeType,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        let layers = self.layers(compute).expect("a model computes in what it was loaded for");
        let (cpu, width) = (self.cpu, self.shape.width);
        let Scratch { hidden, places, lengths, layer: layer_scratch } = scratch;
        lengths.clear();
        lengths.extend(texts.iter().map(|ids| ids.len()));
        let values = lengths.iter().sum::<usize>() * width;
        let (hidden, places) = (resized(hidden, values), resized(places, values));
        let mut first = 0;
        for ids in texts {
            let of_text = first..first + ids.len() * width;
            let (hidden, places) = (&mut hidden[of_text.clone()], &mut places[of_text.clone()]);
            self.embeddings.embed(cpu, compute, ids, hidden, places);
            first = of_text.end;
        }
        for layer in layers {
            layer.apply(cpu, hidden, lengths, layer_scratch);
        }
        hidden
    }
}
