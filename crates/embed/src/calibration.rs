//! What the inputs of integer layers look like, found out from a few texts while a model is loaded.
//!
//! A channel or two of every BERT are many times as large as the others, and not because of their
//! weights: that shows only when texts run through. Which texts they are hardly matters.

use kernels::simd::Cpu;

use crate::ComputeType;
use crate::embeddings::Embeddings;
use crate::layer::{Layer, LayerSmoothing, Matrices, Scratch};
use crate::settings::Shape;
use crate::smoothing::Smoothing;

/// Questions and statements, short and long, of several fields.
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

/// [`TEXTS`] on their way through the layers, in bfloat16: exact enough, and the same bits at every level of
/// instructions, so that the layers that are packed after it are the same as well.
pub(crate) struct Calibration {
    cpu: Cpu,
    shape: Shape,
    hidden: Vec<f32>,
    lengths: Vec<usize>,
    scratch: Scratch,
}

impl Calibration {
    /// Before the first layer. `texts` are the tokens of [`TEXTS`].
    pub(crate) fn new(cpu: Cpu, shape: Shape, embeddings: &Embeddings, texts: &[Vec<u32>]) -> Calibration {
        let width = shape.width;
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let mut hidden = vec![0.0; lengths.iter().sum::<usize>() * width];
        let mut rest = &mut hidden[..];
        for ids in texts {
            let (of_text, later) = rest.split_at_mut(ids.len() * width);
            let mut places = vec![0.0; of_text.len()];
            embeddings.embed(cpu, ComputeType::Bf16, ids, of_text, &mut places);
            rest = later;
        }
        Calibration { cpu, shape, hidden, lengths, scratch: Scratch::default() }
    }

    /// Runs the next layer and says how its inputs are to be smoothed.
    pub(crate) fn run(&mut self, matrices: &Matrices) -> LayerSmoothing {
        let Calibration { cpu, shape, hidden, lengths, scratch } = self;
        let layer = Layer::pack(*cpu, ComputeType::Bf16, *shape, matrices, &LayerSmoothing::none(*shape));
        let qkv = Smoothing::of(hidden, matrices.qkv());
        layer.attend(*cpu, hidden, lengths, scratch);
        let intermediate = Smoothing::of(hidden, matrices.intermediate());
        layer.feed_forward(*cpu, hidden, scratch);
        LayerSmoothing { qkv, intermediate }
    }
}
