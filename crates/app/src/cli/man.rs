//! `nearfield man`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, exit::Exit, session::Session};

/// Write the manual pages of all commands into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  nearfield man ~/.local/share/man/man1 && man nearfield-index")]
pub(crate) struct ManArgs {
    /// Directory; created if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl ManArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let directory = &self.directory;
        let write = || {
            fs::create_dir_all(directory)?;
            clap_mangen::generate_to(Cli::command(), directory)
        };
        write().with_context(|| format!("writing manual pages to {}", directory.display()))?;
        session.terminal.note(format_args!("wrote the manual pages to {}", directory.display()));
        Ok(Exit::Done)
    }
}
