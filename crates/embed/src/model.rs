//! A loaded model.

use std::fmt;
use std::path::{Path, PathBuf};

use kernels::simd::Cpu;
use sha2::{Digest, Sha256};

use crate::calibration::TEXTS;
use crate::encoder::{Encoder, Scratch};
use crate::pooling::{normalize, pool};
use crate::settings::{Settings, read_file};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use crate::{ComputeType, Fingerprint, LoadError, Tokens};

/// Bytes a weights file may have.
const WEIGHTS_BYTES_MAX: u64 = 8 << 30;
/// Bytes a tokenizer file may have.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Tokens of a batch that go through the encoder together, unless a single text has more. More
/// would not be faster, since activations then leave the cache, and would take more memory.
const PASS_TOKENS_MAX: usize = 512;

/// A loaded model, immutable and shared between threads.
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
    /// Read are `modules.json`, `config.json`, `sentence_bert_config.json` (or, without it, the
    /// length in `tokenizer_config.json`), `config_sentence_transformers.json` where it is, the
    /// pooling module's `config.json`, `tokenizer.json` and `model.safetensors`.
    ///
    /// Weights are packed and kept for each of `computes`, and for no other.
    pub fn load(dir: &Path, cpu: Cpu, computes: &[ComputeType]) -> Result<Model, LoadError> {
        Model::load_with_deferred(dir, cpu, computes, &[])
    }

    /// [`Model::load`], but for `later` only what all arithmetics share is kept. The rest, most of the
    /// memory that another arithmetic takes, comes with [`Model::prepare`].
    pub fn load_with_deferred(
        dir: &Path,
        cpu: Cpu,
        computes: &[ComputeType],
        later: &[ComputeType],
    ) -> Result<Model, LoadError> {
        let settings = Settings::read(dir)?;
        let shape = settings.shape;
        let files = Files::read(&settings)?;
        let tokenizer = Tokenizer::parse(
            &files.tokenizer_path,
            &files.tokenizer,
            settings.tokens_max,
            settings.lowercase,
            shape.vocabulary,
        )?;
        let weights = Weights::parse(&files.weights_path, &files.weights)?;
        let encoder = Encoder::load(cpu, shape, &weights, &[computes, later].concat())?;
        encoder.pack(&weights, computes, &calibration(&tokenizer))?;
        let fingerprint = fingerprint(&files, &settings);
        let name = dir.canonicalize().ok().unwrap_or_else(|| dir.into());
        let name = name.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        Ok(Model { name, settings, tokenizer, encoder, fingerprint })
    }

    /// Reads the weights again and packs them for an arithmetic that was put off at load; does nothing if
    /// they are packed. Files that have changed since the model was loaded are refused. Takes a moment.
    ///
    /// # Panics
    ///
    /// If it was not loaded for `compute`.
    pub fn prepare(&self, compute: ComputeType) -> Result<(), LoadError> {
        if self.is_prepared(compute) {
            return Ok(());
        }
        let files = Files::read(&self.settings)?;
        if fingerprint(&files, &self.settings) != self.fingerprint {
            return Err(LoadError::Changed { path: self.settings.transformer_dir.clone() });
        }
        let weights = Weights::parse(&files.weights_path, &files.weights)?;
        self.encoder.pack(&weights, &[compute], &calibration(&self.tokenizer))?;
        assert!(self.is_prepared(compute), "a model computes in what it was loaded for");
        Ok(())
    }

    /// Whether it can compute in `compute` as it is.
    pub fn is_prepared(&self, compute: ComputeType) -> bool {
        self.encoder.is_packed(compute)
    }

    /// The model's name: its directory's last component.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.settings.shape.width
    }

    /// Longest text in tokens, special tokens included; longer ones are cut.
    pub fn tokens_max(&self) -> usize {
        self.settings.tokens_max
    }

    /// Identity of the vectors this model makes, of whatever [`ComputeType`].
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Tokenizes the text of a document, after the prompt the model wants before documents (mostly
    /// none), with special tokens, cut at [`Model::tokens_max`].
    pub fn tokenize(&self, text: &str) -> Tokens {
        self.tokenize_after(&self.settings.prompts.document, text)
    }

    /// Tokenizes a query, after the prompt the model wants before queries, in the same way.
    pub fn tokenize_query(&self, text: &str) -> Tokens {
        self.tokenize_after(&self.settings.prompts.query, text)
    }

    fn tokenize_after(&self, prompt: &str, text: &str) -> Tokens {
        match prompt {
            "" => self.tokenizer.tokenize(text),
            prompt => self.tokenizer.tokenize(&[prompt, text].concat()),
        }
    }

    /// Embeds a ragged batch: `batch.len() * dim` values, row by row in the order of `batch`.
    /// A row does not depend on what else is in the batch. No tokens at all make a zero row.
    ///
    /// Memory is bounded however long the batch is. Panics if the tokens are not this model's, or if
    /// it was not loaded or prepared for `compute`.
    pub fn embed(&self, batch: &[Tokens], compute: ComputeType) -> Vec<f32> {
        let dim = self.dim();
        let mut vectors = vec![0.0; batch.len() * dim];
        let mut scratch = Scratch::default();
        let (mut texts, mut rows) = (batch, &mut vectors[..]);
        while !texts.is_empty() {
            let (pass, later) = texts.split_at(texts_of_a_pass(texts));
            let (pass_rows, later_rows) = rows.split_at_mut(pass.len() * dim);
            self.embed_pass(pass, compute, pass_rows, &mut scratch);
            (texts, rows) = (later, later_rows);
        }
        vectors
    }

    fn embed_pass(&self, texts: &[Tokens], compute: ComputeType, rows: &mut [f32], scratch: &mut Scratch) {
        let dim = self.dim();
        let ids: Vec<&[u32]> = texts.iter().map(|tokens| &tokens.ids[..]).collect();
        let mut hidden = self.encoder.encode(&ids, compute, scratch);
        for (ids, row) in ids.iter().zip(rows.chunks_exact_mut(dim)) {
            let (of_text, rest) = hidden.split_at(ids.len() * dim);
            pool(self.settings.pooling, of_text, dim, row);
            if self.settings.normalize {
                normalize(row);
            }
            hidden = rest;
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the weights: millions of numbers.
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// How many of `texts`, at least one, go through the encoder together.
fn texts_of_a_pass(texts: &[Tokens]) -> usize {
    let mut tokens = 0;
    let fitting = texts.iter().take_while(|text| {
        tokens += text.ids.len();
        tokens <= PASS_TOKENS_MAX
    });
    fitting.count().max(1)
}

/// The large files of a model, as they stand on disk.
struct Files {
    tokenizer_path: PathBuf,
    tokenizer: Vec<u8>,
    weights_path: PathBuf,
    weights: Vec<u8>,
}

impl Files {
    fn read(settings: &Settings) -> Result<Files, LoadError> {
        let tokenizer_path = settings.transformer_dir.join("tokenizer.json");
        let weights_path = settings.transformer_dir.join("model.safetensors");
        let tokenizer = read_file(&tokenizer_path, TOKENIZER_BYTES_MAX)?;
        let weights = read_file(&weights_path, WEIGHTS_BYTES_MAX)?;
        Ok(Files { tokenizer_path, tokenizer, weights_path, weights })
    }
}

fn calibration(tokenizer: &Tokenizer) -> [Vec<u32>; TEXTS.len()] {
    TEXTS.map(|text| tokenizer.tokenize(text).ids)
}

fn fingerprint(files: &Files, settings: &Settings) -> Fingerprint {
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
        // Lengths first, so that no two triples run into the same bytes.
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
    fn a_pass_takes_what_fits_and_at_least_one_text() {
        let texts = |lengths: &[usize]| -> Vec<Tokens> {
            lengths.iter().map(|&len| Tokens { ids: vec![0; len], truncated: false }).collect()
        };
        assert_eq!(texts_of_a_pass(&texts(&[PASS_TOKENS_MAX + 1, 1])), 1);
        assert_eq!(texts_of_a_pass(&texts(&[PASS_TOKENS_MAX - 1, 1, 1])), 2);
        assert_eq!(texts_of_a_pass(&texts(&[0, 0])), 2);
    }
}
