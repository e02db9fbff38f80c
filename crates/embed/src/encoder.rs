//! The BERT encoder (Devlin et al. 2018).

use kernels::simd::Cpu;

use crate::calibration::Calibration;
use crate::embeddings::Embeddings;
use crate::layer::{Layer, LayerSmoothing, Matrices, Scratch as LayerScratch, resized};
use crate::settings::Shape;
use crate::weights::Weights;
use crate::{Compute, LoadError};

/// Embeddings and layers, packed for the kernels.
pub(crate) struct Encoder {
    cpu: Cpu,
    width: usize,
    embeddings: Embeddings,
    /// The layers in each arithmetic that was asked for.
    stacks: Vec<(Compute, Vec<Layer>)>,
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
    /// Takes the encoder's tensors out of `weights` and packs them for each of `computes`.
    /// `calibration` are the tokens of [`crate::calibration::TEXTS`].
    pub(crate) fn load(
        cpu: Cpu,
        shape: Shape,
        weights: &Weights<'_>,
        computes: &[Compute],
        calibration: &[Vec<u32>],
    ) -> Result<Encoder, LoadError> {
        let embeddings = Embeddings::load(shape, weights, computes)?;
        let mut stacks: Vec<(Compute, Vec<Layer>)> = Vec::new();
        for &compute in computes {
            if stacks.iter().all(|(packed, _)| *packed != compute) {
                stacks.push((compute, Vec::with_capacity(shape.layers)));
            }
        }
        let mut calibration =
            computes.contains(&Compute::Int8).then(|| Calibration::new(cpu, shape, &embeddings, calibration));
        for i in 0..shape.layers {
            // One layer at a time, so that only one stands in memory unpacked.
            let matrices = Matrices::load(weights, &format!("encoder.layer.{i}"), shape)?;
            let smoothing = match &mut calibration {
                Some(calibration) => calibration.run(&matrices),
                None => LayerSmoothing::none(shape),
            };
            for (compute, layers) in &mut stacks {
                layers.push(Layer::pack(cpu, *compute, shape, &matrices, &smoothing));
            }
        }
        Ok(Encoder { cpu, width: shape.width, embeddings, stacks })
    }

    /// The last layer's vectors of `texts`, a row a token, text after text. Panics if a text has
    /// more tokens than there are positions, an id beyond the vocabulary, or `compute` was not asked
    /// for at load.
    pub(crate) fn encode<'s>(
        &self,
        texts: &[&[u32]],
        compute: Compute,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        let stack = self.stacks.iter().find(|(packed, _)| *packed == compute);
        let (_, layers) = stack.expect("a model computes in what it was loaded for");
        let (cpu, width) = (self.cpu, self.width);
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
