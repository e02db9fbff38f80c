//! Bodies of the fuzz targets for texts and for model files.

use std::fs;

use kernels::simd::Cpu;
use serde_json::Value;
use tempfile::TempDir;

use crate::tokenizer::Tokenizer;
use crate::tokenizer::small_tokenizer::{matches_library, small_tokenizer};
use crate::{ComputeType, LoadError, Model};

#[path = "../tests/synthetic_model/synthetic.rs"]
#[allow(dead_code, reason = "the tests of whole models use the remaining functions")]
mod synthetic;
use synthetic::SyntheticModel;

thread_local! {
    static TOKENIZER: Tokenizer = small_tokenizer();
    // Thread-local rather than static, so that the directory is removed when the test ends.
    static DIRECTORY: ModelDirectory = ModelDirectory::new();
}

/// Tokenizes a text. The result must match the library's and respect the model's maximum length.
pub fn tokenizer_text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    TOKENIZER.with(|tokenizer| {
        matches_library(tokenizer, text);
        let tokens = tokenizer.tokenize(text);
        assert!((2..=tokenizer.tokens_max).contains(&tokens.ids.len()), "{} ids", tokens.ids.len());
        assert!(!tokens.truncated || tokens.ids.len() == tokenizer.tokens_max);
    });
}

/// The model files that the input can replace. Its first byte selects one, and the rest is the new content.
const FILES: [&str; 9] = [
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config.json",
    "tokenizer.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "model.safetensors",
    WEIGHTS_HEADER,
];

/// Selects only the header of the weights file; its data remains valid.
const WEIGHTS_HEADER: &str = "";

/// Loads a model with one replaced file. If it loads, it must embed a text; otherwise the error must
/// name a file.
pub fn model_files(input: &[u8]) {
    let Some((&choice, content)) = input.split_first() else { return };
    let file = FILES[usize::from(choice) % FILES.len()];
    DIRECTORY.with(|directory| match directory.load(file, content) {
        Ok(model) => {
            let tokens = model.tokenize("a river of stones?");
            assert!(tokens.ids.len() <= model.tokens_max());
            let vector = model.embed(&[tokens], ComputeType::F32);
            assert_eq!(vector.len(), model.dim());
            assert!(vector.iter().all(|value| value.is_finite()), "{vector:?}");
        }
        Err(error) => {
            let path_text = directory.dir.path().display().to_string();
            assert!(error.to_string().contains(&path_text), "{error}");
        }
    });
}

/// A model directory.
struct ModelDirectory {
    dir: TempDir,
    model: SyntheticModel,
}

impl ModelDirectory {
    fn new() -> ModelDirectory {
        let model = SyntheticModel::new(1);
        ModelDirectory { dir: model.write(), model }
    }

    /// Loads the model with one file replaced, then restores the file.
    fn load(&self, file: &str, content: &[u8]) -> Result<Model, LoadError> {
        let weights = self.model.safetensors();
        let (file, content) = match file {
            WEIGHTS_HEADER => ("model.safetensors", with_header(content, &weights)),
            file => (file, content.to_vec()),
        };
        let path = self.dir.path().join(file);
        let write = |content: &[u8]| fs::write(&path, content).expect("the directory is writable");
        write(&content);
        let loaded = Model::load(self.dir.path(), Cpu::detect(), &[ComputeType::F32]);
        match (file, self.model.files.get(file).map(Value::to_string)) {
            ("model.safetensors", _) => write(&weights),
            (_, Some(original)) => write(original.as_bytes()),
            (_, None) => fs::remove_file(&path).expect("the file exists"),
        }
        loaded
    }
}

/// Replaces the header of a weights file.
fn with_header(header: &[u8], weights: &[u8]) -> Vec<u8> {
    let (len, rest) = weights.split_first_chunk().expect("the file starts with a length");
    let data = &rest[u64::from_le_bytes(*len) as usize..];
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod corpora {
    use super::replay;

    replay::corpora!(tokenizer_text, model_files);
}
