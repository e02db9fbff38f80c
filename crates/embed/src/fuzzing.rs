//! Bodies of the fuzz targets on texts and on the files of a model.

use std::fs;

use kernels::simd::Cpu;
use serde_json::Value;
use tempfile::TempDir;

use crate::tokenizer::Tokenizer;
use crate::tokenizer::small::{agrees, small};
use crate::{ComputeType, LoadError, Model};

#[path = "../tests/synthetic_model/synthetic.rs"]
#[allow(dead_code, reason = "tests of whole models change more of it")]
mod synthetic;
use synthetic::Synthetic;

thread_local! {
    static TOKENIZER: Tokenizer = small();
    // Of a thread, not of the program, so that a test's directory is removed.
    static DIRECTORY: Directory = Directory::new();
}

/// A text: our tokenizer makes of it what the library makes, within the model's length.
pub fn tokenizer_text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    TOKENIZER.with(|tokenizer| {
        agrees(tokenizer, text);
        let tokens = tokenizer.tokenize(text);
        assert!((2..=tokenizer.tokens_max).contains(&tokens.ids.len()), "{} ids", tokens.ids.len());
        assert!(!tokens.truncated || tokens.ids.len() == tokenizer.tokens_max);
    });
}

/// The files of a model a byte chooses among, to be replaced by the rest of the input.
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

/// The header of the weights alone, before the data it was made for.
const WEIGHTS_HEADER: &str = "";

/// A model's file, the others being right: a model that loads embeds, one that does not is refused
/// by the name of a file.
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
        Err(refused) => {
            let place = directory.dir.path().display().to_string();
            assert!(refused.to_string().contains(&place), "{refused}");
        }
    });
}

/// A model directory.
struct Directory {
    dir: TempDir,
    model: Synthetic,
}

impl Directory {
    fn new() -> Directory {
        let model = Synthetic::new(1);
        Directory { dir: model.write(), model }
    }

    /// Loads the model with one file replaced, and puts that back.
    fn load(&self, file: &str, content: &[u8]) -> Result<Model, LoadError> {
        let weights = self.model.safetensors();
        let (file, content) = match file {
            WEIGHTS_HEADER => ("model.safetensors", with_header(content, &weights)),
            file => (file, content.to_vec()),
        };
        let path = self.dir.path().join(file);
        let write = |content: &[u8]| fs::write(&path, content).expect("a directory of ours");
        write(&content);
        let loaded = Model::load(self.dir.path(), Cpu::detect(), &[ComputeType::F32]);
        match (file, self.model.files.get(file).map(Value::to_string)) {
            ("model.safetensors", _) => write(&weights),
            (_, Some(right)) => write(right.as_bytes()),
            (_, None) => fs::remove_file(&path).expect("a file of ours"),
        }
        loaded
    }
}

/// A weights file with another header.
fn with_header(header: &[u8], weights: &[u8]) -> Vec<u8> {
    let (len, rest) = weights.split_first_chunk().expect("a length comes first");
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
