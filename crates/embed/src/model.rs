//! A loaded model.

use std::fmt;
use std::path::{Path, PathBuf};

use kernels::simd::Cpu;
use sha2::{Digest, Sha256};

use crate::calibration::TEXTS;
use crate::encoder::{Encoder, EncoderScratch};
use crate::pooling::{normalize, pool};
use crate::settings::{Settings, read_file};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use crate::{ComputeType, Fingerprint, LoadError, Tokens};

/// Maximum size of a weights file, in bytes.
const WEIGHTS_BYTES_MAX: u64 = 8 << 30;
/// Maximum size of a tokenizer file, in bytes.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Maximum number of tokens per forward pass, unless a single text has more. Larger passes would not
/// be faster, because activations would no longer fit into the cache, and would need more memory.
const PASS_TOKENS_MAX: usize = 512;

/// A loaded model. It is immutable and can be shared between threads.
pub struct Model {
    name: String,
    settings: Settings,
    tokenizer: Tokenizer,
    encoder: Encoder,
    fingerprint: Fingerprint,
}

impl Model {
    /// Loads a sentence-transformers model directory (safetensors, BERT family).
    ///
    /// Reads `modules.json`, `config.json`, `sentence_bert_config.json` (or, if it is missing, the
    /// length in `tokenizer_config.json`), `config_sentence_transformers.json` if it exists, the
    /// pooling module's `config.json`, `tokenizer.json` and `model.safetensors`.
    ///
    /// Packs and keeps the weights for the compute types in `computes` only.
    pub fn load(dir: &Path, cpu: Cpu, computes: &[ComputeType]) -> Result<Model, LoadError> {
        Model::load_with_deferred(dir, cpu, computes, &[])
    }

    /// Like [`Model::load`], but defers packing weights for the compute types in `deferred` until
    /// [`Model::prepare`]. Until then they need only the memory that all compute types share.
    pub fn load_with_deferred(
        dir: &Path,
        cpu: Cpu,
        computes: &[ComputeType],
        deferred: &[ComputeType],
    ) -> Result<Model, LoadError> {
        let settings = Settings::read(dir)?;
        let shape = settings.shape;
        let files = ModelFiles::read(&settings)?;
        let tokenizer = Tokenizer::parse(
            &files.tokenizer_path,
            &files.tokenizer,
            settings.tokens_max,
            settings.lowercase,
            shape.vocabulary,
        )?;
        let weights = Weights::parse(&files.weights_path, &files.weights)?;
        let encoder = Encoder::load(cpu, shape, &weights, &[computes, deferred].concat())?;
        encoder.pack(&weights, computes, &calibration_tokens(&tokenizer))?;
        let fingerprint = fingerprint(&files, &settings);
        let name = dir.canonicalize().ok().unwrap_or_else(|| dir.into());
        let name = name.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        Ok(Model { name, settings, tokenizer, encoder, fingerprint })
    }

    /// Reads the weights again and packs them for a deferred compute type. Does nothing if they are
    /// already packed. Fails if the files have changed since the model was loaded. Takes a few hundred
    /// milliseconds.
    ///
    /// # Panics
    ///
    /// If the model was not loaded for `compute`.
    pub fn prepare(&self, compute: ComputeType) -> Result<(), LoadError> {
        if self.is_prepared(compute) {
            return Ok(());
        }
        let files = ModelFiles::read(&self.settings)?;
        if fingerprint(&files, &self.settings) != self.fingerprint {
            return Err(LoadError::Changed { path: self.settings.transformer_dir.clone() });
        }
        let weights = Weights::parse(&files.weights_path, &files.weights)?;
        self.encoder.pack(&weights, &[compute], &calibration_tokens(&self.tokenizer))?;
        assert!(self.is_prepared(compute), "the model was not loaded for this compute type");
        Ok(())
    }

    /// Whether the weights are packed for `compute`.
    pub fn is_prepared(&self, compute: ComputeType) -> bool {
        self.encoder.is_packed(compute)
    }

    /// The model's name: the last component of its directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.settings.shape.width
    }

    /// Maximum length of a text in tokens, including special tokens. Longer texts are truncated.
    pub fn tokens_max(&self) -> usize {
        self.settings.tokens_max
    }

    /// Identity of this model's vectors. It does not depend on the [`ComputeType`].
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Tokenizes the text of a document, preceded by the model's document prompt if it has one. Adds
    /// special tokens and truncates to [`Model::tokens_max`].
    pub fn tokenize(&self, text: &str) -> Tokens {
        self.tokenize_with_prompt(&self.settings.prompts.document, text)
    }

    /// Like [`Model::tokenize`], but with the model's query prompt.
    pub fn tokenize_query(&self, text: &str) -> Tokens {
        self.tokenize_with_prompt(&self.settings.prompts.query, text)
    }

    fn tokenize_with_prompt(&self, prompt: &str, text: &str) -> Tokens {
        match prompt {
            "" => self.tokenizer.tokenize(text),
            prompt => self.tokenizer.tokenize(&[prompt, text].concat()),
        }
    }

    /// Embeds a ragged batch. Returns `batch.len() * dim` values, row by row in the order of `batch`.
    /// A row does not depend on the rest of the batch. A text without any tokens gives a zero row.
    ///
    /// Memory use is bounded, regardless of the length of the batch. Panics if the tokens are not from
    /// this model, or if the model was not loaded or prepared for `compute`.
    pub fn embed(&self, batch: &[Tokens], compute: ComputeType) -> Vec<f32> {
        let dim = self.dim();
        let mut vectors = vec![0.0; batch.len() * dim];
        let mut scratch = EncoderScratch::default();
        let (mut texts, mut rows) = (batch, &mut vectors[..]);
        while !texts.is_empty() {
            let (pass, rest) = texts.split_at(texts_per_pass(texts));
            let (pass_rows, rest_rows) = rows.split_at_mut(pass.len() * dim);
            self.embed_pass(pass, compute, pass_rows, &mut scratch);
            (texts, rows) = (rest, rest_rows);
        }
        vectors
    }

    fn embed_pass(
        &self,
        texts: &[Tokens],
        compute: ComputeType,
        rows: &mut [f32],
        scratch: &mut EncoderScratch,
    ) {
        let dim = self.dim();
        let ids: Vec<&[u32]> = texts.iter().map(|tokens| &tokens.ids[..]).collect();
        let mut hidden = self.encoder.encode(&ids, compute, scratch);
        for (ids, row) in ids.iter().zip(rows.chunks_exact_mut(dim)) {
            let (text_rows, rest) = hidden.split_at(ids.len() * dim);
            pool(self.settings.pooling, text_rows, dim, row);
            if self.settings.normalize {
                normalize(row);
            }
            hidden = rest;
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits the weights, which are millions of numbers.
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// Number of leading `texts`, at least one, that are encoded in one forward pass.
fn texts_per_pass(texts: &[Tokens]) -> usize {
    let mut tokens = 0;
    let fitting = texts.iter().take_while(|text| {
        tokens += text.ids.len();
        tokens <= PASS_TOKENS_MAX
    });
    fitting.count().max(1)
}

/// The content of a model's large files.
struct ModelFiles {
    tokenizer_path: PathBuf,
    tokenizer: Vec<u8>,
    weights_path: PathBuf,
    weights: Vec<u8>,
}

impl ModelFiles {
    fn read(settings: &Settings) -> Result<ModelFiles, LoadError> {
        let tokenizer_path = settings.transformer_dir.join("tokenizer.json");
        let weights_path = settings.transformer_dir.join("model.safetensors");
        let tokenizer = read_file(&tokenizer_path, TOKENIZER_BYTES_MAX)?;
        let weights = read_file(&weights_path, WEIGHTS_BYTES_MAX)?;
        Ok(ModelFiles { tokenizer_path, tokenizer, weights_path, weights })
    }
}

fn calibration_tokens(tokenizer: &Tokenizer) -> [Vec<u32>; TEXTS.len()] {
    TEXTS.map(|text| tokenizer.tokenize(text).ids)
}

fn fingerprint(files: &ModelFiles, settings: &Settings) -> Fingerprint {
    let Settings { shape, pooling, normalize, tokens_max, lowercase, prompts, transformer_dir: _ } = settings;
    let mut effective = format!(
        "heads {}, layers {}, layer_norm_eps {:e}, pooling {pooling:?}, normalize {normalize}, \
         tokens_max {tokens_max}, lowercase {lowercase}",
        shape.heads, shape.layers, shape.layer_norm_eps
    );
    if !prompts.document.is_empty() {
        effective += &format!(", document prompt {:?}", prompts.document);
    }
    let mut sha256 = Sha256::new();
    for part in [&*files.weights, &*files.tokenizer, effective.as_bytes()] {
        // Each part is preceded by its length, so that different parts never hash the same bytes.
        sha256.update((part.len() as u64).to_le_bytes());
        sha256.update(part);
    }
    let digest: [u8; 32] = sha256.finalize().into();
    let (first, _) = digest.split_at(16);
    Fingerprint(first.try_into().expect("half of 32 bytes is 16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_contains_at_least_one_text_and_no_more_than_fit() {
        let texts = |lengths: &[usize]| -> Vec<Tokens> {
            lengths.iter().map(|&len| Tokens { ids: vec![0; len], truncated: false }).collect()
        };
        assert_eq!(texts_per_pass(&texts(&[PASS_TOKENS_MAX + 1, 1])), 1);
        assert_eq!(texts_per_pass(&texts(&[PASS_TOKENS_MAX - 1, 1, 1])), 2);
        assert_eq!(texts_per_pass(&texts(&[0, 0])), 2);
    }
}
