//! Calibration: measuring the input ranges of int8 layers with a few texts while a model is loaded.
//!
//! In every BERT model one or two channels are many times as large as the others. The weights do not
//! show this; it is only visible in activations. The choice of texts hardly matters.

use kernels::simd::Cpu;

use crate::ComputeType;
use crate::embeddings::Embeddings;
use crate::layer::{Layer, LayerScratch, LayerSmoothing, LayerWeights};
use crate::settings::ModelShape;
use crate::smoothing::Smoothing;

/// Short and long questions and statements from several domains.
pub(crate) const TEXTS: [&str; 16] = [
    "how do I reset my password",
    "The river rises in the mountains and flows south through three countries before it reaches the sea.",
    "Python library for parsing and validating configuration files",
    "What are the side effects of taking aspirin every day?",
    "error: connection refused while connecting to the database on port 5432",
    "She had never seen such a crowded market, full of spices, cloth and noise.",
    "best Italian restaurant near me",
    "Quarterly revenue rose by 12.5 percent, to $3.4 billion, the company said on Tuesday.",
    "fast full-text search engine written in Rust",
    "In 1969 two astronauts walked on the Moon; a third stayed in orbit.",
    "Expression of the gene was reduced in mice that lack the receptor.",
    "return policy for damaged items",
    "A lightweight HTTP client with retries, timeouts and connection pooling.",
    "Can I cancel my subscription and get a refund?",
    "The court held that the contract was void because one party had been misled.",
    "Wie wird das Wetter morgen in Berlin?",
];

/// Runs [`TEXTS`] through the layers in bfloat16. That is exact enough, and gives the same bits at every SIMD
/// level, so that the packed layers are identical as well.
pub(crate) struct Calibration {
    cpu: Cpu,
    shape: ModelShape,
    hidden: Vec<f32>,
    lengths: Vec<usize>,
    scratch: LayerScratch,
}

impl Calibration {
    /// Embeds the texts. `texts` contains the tokens of [`TEXTS`].
    pub(crate) fn new(
        cpu: Cpu,
        shape: ModelShape,
        embeddings: &Embeddings,
        texts: &[Vec<u32>],
    ) -> Calibration {
        let width = shape.width;
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let mut hidden = vec![0.0; lengths.iter().sum::<usize>() * width];
        let mut rest = &mut hidden[..];
        for ids in texts {
            let (text_rows, remaining) = rest.split_at_mut(ids.len() * width);
            let mut position_rows = vec![0.0; text_rows.len()];
            embeddings.embed(cpu, ComputeType::Bf16, ids, text_rows, &mut position_rows);
            rest = remaining;
        }
        Calibration { cpu, shape, hidden, lengths, scratch: LayerScratch::default() }
    }

    /// Runs the next layer and returns the smoothing for it.
    pub(crate) fn run(&mut self, layer_weights: &LayerWeights) -> LayerSmoothing {
        let Calibration { cpu, shape, hidden, lengths, scratch } = self;
        let layer =
            Layer::pack(*cpu, ComputeType::Bf16, *shape, layer_weights, &LayerSmoothing::identity(*shape));
        let qkv = Smoothing::fit(hidden, layer_weights.qkv());
        layer.attend(*cpu, hidden, lengths, scratch);
        let intermediate = Smoothing::fit(hidden, layer_weights.intermediate());
        layer.feed_forward(*cpu, hidden, scratch);
        LayerSmoothing { qkv, intermediate }
    }
}
