//! Why a model directory is refused.

use std::path::PathBuf;

/// Why a model could not be loaded. Every message names the file, and what in it was wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file is missing or unreadable.
    #[error("cannot read {}: a sentence-transformers model directory needs it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is larger than any model this crate reads.
    #[error("{} has more than {bytes_max} bytes, the most that is read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// A configuration file that is not the JSON it should be.
    #[error("{} is not a valid configuration: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected there.
        source: serde_json::Error,
    },
    /// A setting with a value that is wrong or that this implementation does not know.
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
    /// A tokenizer file that the tokenizer library refuses.
    #[error("{} is not a valid tokenizer: {source}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer knows more tokens than the model has embeddings.
    #[error(
        "{} has token id {id}, but the model has embeddings for {vocabulary} ids: \
         tokenizer and weights are not of one model",
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
    /// A weights file that is not valid safetensors.
    #[error("{} is not a valid safetensors file: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// The weights lack a tensor.
    #[error("{} has no tensor {tensor} (with or without the prefix \"bert.\")", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor of another shape, element type or with impossible values.
    #[error("{}: tensor {tensor} {found}; expected {expected}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Files that are read again are not those the model was loaded from.
    #[error(
        "the model in {} has been replaced since it was loaded: restart, so that it is loaded anew",
        path.display()
    )]
    Changed {
        /// The directory.
        path: PathBuf,
    },
}
