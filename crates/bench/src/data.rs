//! Where corpora and evaluation sets are found.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Sub-directory of relevance judgements.
const EVAL: &str = "eval";
/// Sub-directory of texts without judgements.
const CORPORA: &str = "corpora";

/// The data directory, with the sub-directories `eval` and `corpora`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DataDir {
    /// Directory of corpora; docs/benchmarks.md, section "Data", explains how to obtain each
    #[arg(long = "data", value_name = "DIR", env = "NEARFIELD_DATA", global = true)]
    dir: Option<PathBuf>,
}

impl DataDir {
    /// The directory: the one given, or the fallback for a checkout with its data beside it.
    pub(crate) fn path(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new("../shared"))
    }

    /// The 250,000 package descriptions.
    pub(crate) fn packages(&self) -> Result<PathBuf> {
        self.find("the package descriptions", CORPORA, "packages_250k.jsonl.gz")
    }

    /// The 5,000 queries written for the package descriptions.
    pub(crate) fn package_queries(&self) -> Result<PathBuf> {
        self.find("the queries for the package descriptions", CORPORA, "packages_queries.txt")
    }

    /// The directory of SciFact.
    pub(crate) fn scifact(&self) -> Result<PathBuf> {
        self.find("SciFact", EVAL, "scifact")
    }

    fn find(&self, what: &str, folder: &str, name: &str) -> Result<PathBuf> {
        let path = self.path().join(folder).join(name);
        if path.exists() {
            return Ok(path);
        }
        let origin = match self.dir {
            Some(_) => "the directory given by --data or NEARFIELD_DATA",
            None => "the default; neither --data nor NEARFIELD_DATA is set",
        };
        bail!(
            "{what} not found: there is no {}, looked in {} ({origin}). \
             docs/benchmarks.md, section \"Data\", explains how to obtain it",
            path.display(),
            self.path().display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_corpus_is_reported_with_its_path_and_the_section_that_explains_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir { dir: Some(dir.path().to_owned()) };
        let error = data.scifact().unwrap_err().to_string();
        let expected = dir.path().join("eval").join("scifact");
        for part in ["SciFact", &expected.display().to_string(), "NEARFIELD_DATA", "section \"Data\""] {
            assert!(error.contains(part), "{error}");
        }
        std::fs::create_dir_all(&expected).unwrap();
        assert_eq!(data.scifact().unwrap(), expected);
    }
}
