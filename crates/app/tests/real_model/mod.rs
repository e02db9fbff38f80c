//! The model people use, where it has been pulled.

use std::path::{Path, PathBuf};

/// The directory of models with all-MiniLM-L6-v2 in it: under `NEARFIELD_HOME`, else where
/// `make model` puts it. `None`, said loudly, where it is not there; with `NEARFIELD_REQUIRE_MODEL=1`
/// that is a failure.
pub(crate) fn models() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/nearfield-home");
    let home = std::env::var_os("NEARFIELD_HOME").map_or(made, PathBuf::from);
    let models = home.join("models");
    if models.join("all-MiniLM-L6-v2").is_dir() {
        return Some(models);
    }
    let words = format!("no model all-MiniLM-L6-v2 in {}: run `make model`", models.display());
    assert!(std::env::var("NEARFIELD_REQUIRE_MODEL").as_deref() != Ok("1"), "{words}");
    eprintln!("SKIPPED: {words}");
    None
}
