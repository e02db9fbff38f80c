//! Errors of loading a model.

use std::path::PathBuf;

/// Why a model could not be loaded. Every message names the file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file is missing or unreadable.
    #[error("cannot read {}, which a sentence-transformers model directory must contain", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file exceeds the supported size.
    #[error("{} has more than {bytes_max} bytes, the maximum supported size", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// A configuration file is not valid JSON or lacks required values.
    #[error("{} is not a valid configuration: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// A setting has an invalid or unsupported value.
    #[error("{}: {key} is {found}; {expected}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// The tokenizer library rejects the tokenizer file.
    #[error("{} is not a valid tokenizer: {source}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The library's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer has more tokens than the model has embeddings.
    #[error(
        "{} has token id {id}, but the model has embeddings for {vocabulary} ids: \
         tokenizer and weights belong to different models",
        path.display()
    )]
    Vocabulary {
        /// The tokenizer file.
        path: PathBuf,
        /// The largest id.
        id: u32,
        /// Rows of the embedding table.
        vocabulary: usize,
    },
    /// The weights file is not valid safetensors.
    #[error("{} is not a valid safetensors file: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The library's error.
        source: safetensors::SafeTensorError,
    },
    /// The weights file lacks a tensor.
    #[error("{} has no tensor {tensor} (with or without the prefix \"bert.\")", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor has the wrong shape, an unsupported element type or invalid values.
    #[error("{}: tensor {tensor} {found}; expected {expected}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// The files have changed since the model was loaded.
    #[error(
        "the model in {} has been replaced since it was loaded: restart Nearfield to load the new one",
        path.display()
    )]
    Changed {
        /// The directory.
        path: PathBuf,
    },
}
