//! The default model, if it is installed.

use std::path::{Path, PathBuf};

use crate::requirement::Requirement;

const NAME: &str = "all-MiniLM-L6-v2";

/// The models directory that contains all-MiniLM-L6-v2: below `NEARFIELD_HOME`, by default where `make model`
/// installs it. `None` if the test is to be skipped; see [`Requirement::Model`].
pub fn models() -> Option<PathBuf> {
    Requirement::Model.find(|| {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/nearfield-home");
        let models = std::env::var_os("NEARFIELD_HOME").map_or(default, PathBuf::from).join("models");
        if models.join(NAME).is_dir() {
            Ok(models)
        } else {
            Err(format!("there is no model {NAME} in {}: run `make model`", models.display()))
        }
    })
}

/// The directory of all-MiniLM-L6-v2; see [`models`].
pub fn minilm() -> Option<PathBuf> {
    models().map(|models| models.join(NAME))
}
