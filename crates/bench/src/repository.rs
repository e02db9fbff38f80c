//! Files of the repository that the current directory is in.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where a path of the repository is.
pub(crate) fn path(path: &str) -> Result<PathBuf> {
    let current = std::env::current_dir()?;
    current
        .ancestors()
        .map(|dir| dir.join(path))
        .find(|path| path.exists())
        .with_context(|| format!("no {path} here or above: run nearfield-bench inside the repository"))
}
