//! Finding the installed all-MiniLM-L6-v2 model.

use std::path::{Path, PathBuf};

/// The directory of all-MiniLM-L6-v2 under `$NEARFIELD_HOME` (by default `target/nearfield-home` in
/// the repository). Prints a message and returns `None` if the model is not installed. With
/// `NEARFIELD_REQUIRE_MODEL=1` that is a failure.
pub(crate) fn dir() -> Option<PathBuf> {
    let home = std::env::var_os("NEARFIELD_HOME").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/nearfield-home"),
        PathBuf::from,
    );
    let dir = home.join("models/all-MiniLM-L6-v2");
    if dir.join("model.safetensors").is_file() {
        return Some(dir);
    }
    let required = std::env::var_os("NEARFIELD_REQUIRE_MODEL").is_some_and(|value| value == "1");
    assert!(!required, "NEARFIELD_REQUIRE_MODEL is set, but there is no model in {}", dir.display());
    eprintln!("SKIPPED: no model in {}; `nearfield model pull` installs it", dir.display());
    None
}
