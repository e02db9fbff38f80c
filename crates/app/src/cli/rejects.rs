//! The file given by `--rejects`.

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::Context as _;

/// Creates or truncates the file; returns its name, for messages, with it.
pub(crate) fn create(path: &Path) -> anyhow::Result<(String, BufWriter<File>)> {
    let name = path.display().to_string();
    let file = File::create(path).with_context(|| format!("--rejects {name}"))?;
    Ok((name, BufWriter::new(file)))
}
