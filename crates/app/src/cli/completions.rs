//! `nearfield completions`.

use std::io::Write as _;

use clap::CommandFactory as _;

use super::{Cli, exit::Exit, session::Session};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nearfield completions bash > ~/.local/share/bash-completion/completions/nearfield
  nearfield completions zsh > ~/.zfunc/_nearfield
  nearfield completions fish > ~/.config/fish/completions/nearfield.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl CompletionsArgs {
    /// Runs the command.
    pub(crate) fn run(self, session: &Session) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "nearfield", &mut script);
        session.terminal.output().write_all(&script)?;
        Ok(Exit::Done)
    }
}
