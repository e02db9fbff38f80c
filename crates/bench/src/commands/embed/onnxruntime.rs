//! onnxruntime in its Python process, with a graph composed of the same weights.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use ::embed::{ComputeType, Model, Tokens};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::{
    corpus,
    peer::{Peer, number},
    setting::Setting,
    vectors,
};

/// Texts embedded by both before anything is measured.
const CHECKED: usize = 100;
/// The least cosine between the peer's float32 vectors and ours.
const COSINE_MIN: f64 = 0.99999;

/// Token ids of texts in memory, and in a file for the peer.
pub(super) struct TokensFile {
    texts: Vec<Tokens>,
    batch: usize,
    file: NamedTempFile,
}

impl TokensFile {
    /// Writes a file for `texts` that are embedded `batch` at a time.
    pub(super) fn new(texts: Vec<Tokens>, batch: usize, setting: &Setting) -> Result<TokensFile> {
        ensure!(!texts.is_empty() && batch > 0, "there is nothing to embed: no texts, or batches of none");
        let mut file = NamedTempFile::new_in(&setting.cache_dir)?;
        file.write_all(&file_of(&texts))?;
        file.flush()?;
        Ok(TokensFile { texts, batch, file })
    }

    /// The texts, batch by batch.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[Tokens]> {
        self.texts.chunks(self.batch)
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Little-endian 32-bit numbers: for each text how many ids it has, then the ids.
fn file_of(texts: &[Tokens]) -> Vec<u8> {
    let numbers =
        texts.iter().flat_map(|text| std::iter::once(text.ids.len() as u32).chain(text.ids.clone()));
    numbers.flat_map(u32::to_le_bytes).collect()
}

/// The running peer.
pub(super) struct Onnxruntime {
    peer: Peer,
    /// What it says of itself.
    pub(super) version: String,
}

impl Onnxruntime {
    /// Starts it on `core`, composes its models once, and makes sure that its float32 vectors
    /// are ours.
    pub(super) fn start(model: &Model, setting: &Setting, core: usize) -> Result<Onnxruntime> {
        let mut peer = Peer::start("onnxruntime", &[], &setting.cache_dir, core)?;
        let into = setting.cache_dir.join(format!("onnx-{}", vectors::key_of(model)));
        let answer = peer.ask(&json!({"do": "load", "model_dir": setting.model_dir()?, "into": into}))?;
        let version = answer["version"].as_str().context("the answer has no version")?.to_owned();
        let mut onnxruntime = Onnxruntime { peer, version };
        onnxruntime.check(model, setting)?;
        Ok(onnxruntime)
    }

    fn check(&mut self, model: &Model, setting: &Setting) -> Result<()> {
        let documents = corpus::documents(&setting.source.packages(), CHECKED)?;
        let tokens: Vec<Tokens> = documents.iter().map(|document| model.tokenize(&document.text)).collect();
        let ours: Vec<f32> = tokens
            .iter()
            .flat_map(|tokens| model.embed(std::slice::from_ref(tokens), ComputeType::F32))
            .collect();
        let theirs = self.embed("f32", &TokensFile::new(tokens, 8, setting)?, setting)?;
        let least = vectors::cosines(&ours, &theirs, model.dim()).fold(f64::INFINITY, f64::min);
        ensure!(
            least >= COSINE_MIN,
            "the peer's model is not ours: a text has vectors with cosine {least}; bench/peers/bert_onnx.py \
             composes BERT with mean pooling only"
        );
        Ok(())
    }

    /// The vectors of all texts, in their order.
    pub(super) fn embed(&mut self, compute: &str, texts: &TokensFile, setting: &Setting) -> Result<Vec<f32>> {
        let vectors = NamedTempFile::new_in(&setting.cache_dir)?;
        self.peer.ask(&json!({
            "do": "embed", "compute": compute, "tokens": absolute(texts.path())?,
            "vectors": absolute(vectors.path())?, "batch": texts.batch,
        }))?;
        vectors::read_values(vectors.path())
    }

    /// Median microseconds of processor time a text.
    pub(super) fn measure(&mut self, compute: &str, texts: &TokensFile, seconds: f64) -> Result<f64> {
        let answer = self.peer.ask(&json!({
            "do": "measure", "compute": compute, "tokens": absolute(texts.path())?, "batch": texts.batch,
            "seconds": seconds,
        }))?;
        number(&answer, "us_per_text")
    }

    /// Seconds of processor time for all texts, sorted by length.
    pub(super) fn bulk(&mut self, compute: &str, texts: &TokensFile) -> Result<f64> {
        let answer = self.peer.ask(&json!({
            "do": "bulk", "compute": compute, "tokens": absolute(texts.path())?, "batch": texts.batch,
        }))?;
        number(&answer, "cpu_s")
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_tokens_has_for_each_text_its_length_and_its_ids() {
        let text = |ids: &[u32]| Tokens { ids: ids.to_vec(), truncated: false };
        let bytes = file_of(&[text(&[101, 7, 102]), text(&[101, 102])]);
        let numbers: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        assert_eq!(numbers, [3, 101, 7, 102, 2, 101, 102]);
    }
}
