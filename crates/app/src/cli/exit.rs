//! Exit codes, and which error has which.

use std::{io, process::ExitCode};

use super::{
    error::{ApiError, ConnectionError, UsageError},
    terminal::OutputClosed,
};
use crate::config::ConfigError;
use server::serve::signals::INTERRUPTED;
use service::ErrorKind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success.
    Done,
    /// The operation failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// A document, a collection or a file does not exist.
    NotFound,
    /// The server, the data directory or Redis is unavailable.
    Unavailable,
    /// Interrupted by Ctrl-C after finishing what was in flight.
    Interrupted,
}

/// The exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes: 0 success, 1 failure, 2 invalid command line or configuration, 3 not found, \
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

    /// The exit code of an error, found in its chain of causes. `None` if standard output was closed (`| head`), which
    /// is not an error.
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

/// Treats closed standard output (`| head`) as success, for output whose reader does not affect the exit code.
pub(crate) fn ignore_closed_output(result: Result<(), impl Into<anyhow::Error>>) -> anyhow::Result<()> {
    result.map_err(Into::into).or_else(|error| if Exit::of(&error).is_none() { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_exit_code_through_added_context() {
        let api_error = |status| ApiError { status, code: String::new(), detail: String::new(), deleted: 0 };
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
