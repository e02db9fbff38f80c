//! How the program ends: its exit codes, and which failure has which.

use std::{io, process::ExitCode};

use super::{
    error::{ApiError, ConnectionError, UsageError},
    terminal::OutputClosed,
};
use crate::config::ConfigError;
use server::serve::signals::INTERRUPTED;
use service::ErrorKind;

/// What a caller of the program can tell from its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// The operation failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// There is no such document, collection or file.
    NotFound,
    /// The server, the data directory or the Redis cannot be had now.
    Unavailable,
    /// Ctrl-C; what was in flight was finished.
    Interrupted,
}

/// The codes, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes: 0 done, 1 the operation failed, 2 wrong command line or configuration, 3 not found, \
4 server, data directory or Redis unavailable, 130 interrupted.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Unavailable => 4,
            Exit::Interrupted => INTERRUPTED,
        }
    }

    /// The code of a failure, found in its chain of causes; `None` for a reader that went away
    /// (`| head`), which is none.
    pub(crate) fn of(error: &anyhow::Error) -> Option<Exit> {
        for cause in error.chain() {
            let io = cause.downcast_ref::<io::Error>();
            if io.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<OutputClosed>()) {
                return None;
            }
            if let Some(api_error) = cause.downcast_ref::<ApiError>() {
                return Some(match api_error.status {
                    401 | 403 => Exit::Usage,
                    404 => Exit::NotFound,
                    503 | 504 => Exit::Unavailable,
                    _ => Exit::Failed,
                });
            }
            if let Some(error) = cause.downcast_ref::<service::Error>() {
                return Some(match error.kind {
                    ErrorKind::NotFound => Exit::NotFound,
                    ErrorKind::Overloaded | ErrorKind::Unavailable => Exit::Unavailable,
                    _ => Exit::Failed,
                });
            }
            if cause.is::<ConnectionError>() {
                return Some(Exit::Unavailable);
            }
            if cause.is::<UsageError>() || cause.is::<ConfigError>() {
                return Some(Exit::Usage);
            }
        }
        Some(Exit::Failed)
    }
}

/// What became of telling, where a reader that went away (`| head`) has ignore_closed_output enough: how the command ends is no less
/// true for it.
pub(crate) fn ignore_closed_output(told: Result<(), impl Into<anyhow::Error>>) -> anyhow::Result<()> {
    told.map_err(Into::into).or_else(|error| if Exit::of(&error).is_none() { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_exit_code_through_added_context() {
        let api_error = |status| ApiError { status, code: String::new(), detail: String::new() };
        let of = |error: anyhow::Error| Exit::of(&error.context("while doing something"));
        assert_eq!(of(api_error(404).into()), Some(Exit::NotFound));
        assert_eq!(of(api_error(401).into()), Some(Exit::Usage));
        assert_eq!(of(api_error(503).into()), Some(Exit::Unavailable));
        assert_eq!(of(api_error(422).into()), Some(Exit::Failed));
        assert_eq!(of(UsageError("no".into()).into()), Some(Exit::Usage));
        assert_eq!(of(anyhow::anyhow!("anything")), Some(Exit::Failed));
        let broken = |error: io::Error| Exit::of(&anyhow::Error::from(error).context("writing"));
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, OutputClosed);
        assert_eq!(broken(closed()), None);
        assert!(
            ignore_closed_output(Err(closed())).is_ok()
                && ignore_closed_output(Err(anyhow::anyhow!("no disk"))).is_err()
        );
        assert_eq!(broken(io::ErrorKind::BrokenPipe.into()), Some(Exit::Failed), "the pipe to a server");
    }
}
