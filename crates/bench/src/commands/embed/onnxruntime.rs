//! onnxruntime in its Python process, running a graph composed from the same weights.

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
    global_options::GlobalOptions,
    peer::{Peer, number},
    vectors,
};

/// Texts whose vectors are compared before anything is measured.
const CHECKED: usize = 100;
/// The lowest acceptable cosine between the peer's float32 vectors and Nearfield's.
const COSINE_MIN: f64 = 0.99999;

/// Token ids of texts, in memory and in a file for the peer.
pub(super) struct TokensFile {
    texts: Vec<Tokens>,
    batch: usize,
    file: NamedTempFile,
}

impl TokensFile {
    /// Writes the file for `texts`, which are embedded in batches of `batch`.
    pub(super) fn new(texts: Vec<Tokens>, batch: usize, global: &GlobalOptions) -> Result<TokensFile> {
        ensure!(
            !texts.is_empty() && batch > 0,
            "nothing to embed: there must be at least one text, and the batch size must be positive"
        );
        let mut file = NamedTempFile::new_in(&global.cache_dir)?;
        file.write_all(&encode(&texts))?;
        file.flush()?;
        Ok(TokensFile { texts, batch, file })
    }

    /// The batches.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[Tokens]> {
        self.texts.chunks(self.batch)
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Little-endian u32 values: for each text the number of its ids, then the ids.
fn encode(texts: &[Tokens]) -> Vec<u8> {
    let numbers =
        texts.iter().flat_map(|text| std::iter::once(text.ids.len() as u32).chain(text.ids.clone()));
    numbers.flat_map(u32::to_le_bytes).collect()
}

/// The running peer.
pub(super) struct Onnxruntime {
    peer: Peer,
    /// The version of onnxruntime.
    pub(super) version: String,
}

impl Onnxruntime {
    /// Starts it on `core`, composes its models if they are not cached, and checks that its float32 vectors
    /// equal Nearfield's.
    pub(super) fn start(model: &Model, global: &GlobalOptions, core: usize) -> Result<Onnxruntime> {
        let mut peer = Peer::start("onnxruntime", &[], &global.cache_dir, core)?;
        let into = global.cache_dir.join(format!("onnx-{}", vectors::key_of(model)));
        let response =
            peer.request(&json!({"do": "load", "model_dir": global.model_dir()?, "into": into}))?;
        let version = response["version"].as_str().context("the response has no version")?.to_owned();
        let mut onnxruntime = Onnxruntime { peer, version };
        onnxruntime.check(model, global)?;
        Ok(onnxruntime)
    }

    fn check(&mut self, model: &Model, global: &GlobalOptions) -> Result<()> {
        let documents = corpus::documents(&global.data.packages()?, CHECKED)?;
        let tokens: Vec<Tokens> = documents.iter().map(|document| model.tokenize(&document.text)).collect();
        let ours: Vec<f32> = tokens
            .iter()
            .flat_map(|tokens| model.embed(std::slice::from_ref(tokens), ComputeType::F32))
            .collect();
        let theirs = self.embed("f32", &TokensFile::new(tokens, 8, global)?, global)?;
        let least = vectors::cosines(&ours, &theirs, model.dim()).fold(f64::INFINITY, f64::min);
        ensure!(
            least >= COSINE_MIN,
            "the peer's model differs from Nearfield's: the vectors of a text have cosine {least}; \
             bench/peers/bert_onnx.py composes BERT with mean pooling only"
        );
        Ok(())
    }

    /// The vectors of all texts, in their order.
    pub(super) fn embed(
        &mut self,
        compute: &str,
        texts: &TokensFile,
        global: &GlobalOptions,
    ) -> Result<Vec<f32>> {
        let vectors = NamedTempFile::new_in(&global.cache_dir)?;
        self.peer.request(&json!({
            "do": "embed", "compute": compute, "tokens": absolute(texts.path())?,
            "vectors": absolute(vectors.path())?, "batch": texts.batch,
        }))?;
        vectors::read_values(vectors.path())
    }

    /// Median CPU microseconds per text.
    pub(super) fn measure(&mut self, compute: &str, texts: &TokensFile, seconds: f64) -> Result<f64> {
        let response = self.peer.request(&json!({
            "do": "measure", "compute": compute, "tokens": absolute(texts.path())?, "batch": texts.batch,
            "seconds": seconds,
        }))?;
        number(&response, "us_per_text")
    }

    /// CPU seconds for all texts, sorted by length.
    pub(super) fn bulk(&mut self, compute: &str, texts: &TokensFile) -> Result<f64> {
        let response = self.peer.request(&json!({
            "do": "bulk", "compute": compute, "tokens": absolute(texts.path())?, "batch": texts.batch,
        }))?;
        number(&response, "cpu_s")
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_holds_the_length_and_the_ids_of_each_text() {
        let text = |ids: &[u32]| Tokens { ids: ids.to_vec(), truncated: false };
        let bytes = encode(&[text(&[101, 7, 102]), text(&[101, 102])]);
        let numbers: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        assert_eq!(numbers, [3, 101, 7, 102, 2, 101, 102]);
    }
}
