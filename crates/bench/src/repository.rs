//! Files of the repository around the current directory.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The location of a path relative to the repository's root.
pub(crate) fn path(path: &str) -> Result<PathBuf> {
    let current = std::env::current_dir()?;
    current.ancestors().map(|dir| dir.join(path)).find(|path| path.exists()).with_context(|| {
        format!(
            "{path} not found in this directory or its parents: run nearfield-bench inside the repository"
        )
    })
}
