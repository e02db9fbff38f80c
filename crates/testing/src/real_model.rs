//! The default model, if it is installed.

use std::path::{Path, PathBuf};

/// The models directory that contains all-MiniLM-L6-v2: below `NEARFIELD_HOME`, by default where
/// `make model` installs it. Prints a message and returns `None` if the model is missing; panics instead with
/// `NEARFIELD_REQUIRE_MODEL=1`.
pub fn models() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/nearfield-home");
    let home = std::env::var_os("NEARFIELD_HOME").map_or(default, PathBuf::from);
    let models = home.join("models");
    if models.join("all-MiniLM-L6-v2").is_dir() {
        return Some(models);
    }
    let message = format!("no model all-MiniLM-L6-v2 in {}: run `make model`", models.display());
    assert!(std::env::var("NEARFIELD_REQUIRE_MODEL").as_deref() != Ok("1"), "{message}");
    eprintln!("SKIPPED: {message}");
    None
}
