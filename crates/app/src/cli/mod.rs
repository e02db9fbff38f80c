//! The command line. Every command that reaches the data is a client of the HTTP interface (see `client`),
//! but for `copy`, which opens two stores.

mod backup;
mod check;
mod client;
mod collection;
mod collections;
mod completions;
mod copy;
mod delete;
mod demo;
mod doctor;
mod duration;
mod eval;
mod exit;
mod export;
#[cfg(any(fuzzing, test))]
pub(crate) use index::fuzzing;
mod get;
mod index;
mod interrupt;
mod model;
mod publish;
mod rejects;
mod repair;
mod restore;
mod search;
mod serve;
mod stats;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand, builder::styling};

use self::{
    client::{Client, ClientFlags},
    exit::Exit,
    terminal::{Color, Terminal},
};
use crate::config::{ConfigError, Flags, ServeFlags, Settings};
use crate::log::start_log;

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold())
    .placeholder(styling::AnsiColor::Cyan.on_default());

/// Real-time semantic search: text in, answers out
#[derive(Debug, Parser)]
#[command(name = "nearfield", version, styles = STYLES, propagate_version = true, after_help = exit::HELP)]
#[command(after_long_help = concat!(
    "Begin with:\n  nearfield model pull\n  nearfield index articles.csv\n  nearfield search \"how do I reset my password\"\n",
    "  nearfield serve\n\nWhile a server has the data directory, the other commands talk to it over HTTP; otherwise they open the \
     data directory themselves. With --store redis://... they open the Redis, whoever else does.\n\n",
    "Exit codes:\n  0    done\n  1    the operation failed\n  2    wrong command line or configuration\n",
    "  3    not found\n  4    server, data directory or Redis unavailable\n  130  interrupted\n",
))]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Options of all commands")]
    flags: Flags,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print nothing but data and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// When to use colours; auto is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Index(index::IndexArgs),
    Search(search::SearchArgs),
    Get(get::GetArgs),
    Delete(delete::DeleteArgs),
    Export(export::ExportArgs),
    Copy(copy::CopyArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Check(check::CheckArgs),
    Repair(repair::RepairArgs),
    Collections(collections::CollectionsArgs),
    Stats(stats::StatsArgs),
    Doctor(doctor::DoctorArgs),
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Eval(eval::EvalArgs),
    Model(model::ModelArgs),
    Completions(completions::CompletionsArgs),
}

/// What every command is run with.
#[derive(Debug)]
struct Session {
    flags: Flags,
    terminal: Terminal,
}

impl Session {
    /// The settings; of a server too, if its flags are given.
    fn settings(&self, serve: Option<&ServeFlags>) -> Result<Settings, ConfigError> {
        let settings = self.settings_of(&self.flags, serve)?;
        for warning in &settings.warnings {
            self.terminal.warn(warning);
        }
        Ok(settings)
    }

    /// The settings where other flags are given; their warnings are not told.
    fn settings_of(&self, flags: &Flags, serve: Option<&ServeFlags>) -> Result<Settings, ConfigError> {
        // Variables of this program that are no settings of it.
        const OTHERS: [&str; 6] = [
            "NEARFIELD_URL",
            "NEARFIELD_COPY_FROM",
            "NEARFIELD_COPY_TO",
            "NEARFIELD_REQUIRE_MODEL",
            "NEARFIELD_REQUIRE_REDIS",
            "NEARFIELD_REQUIRE_TOOLS",
        ];
        let environment = std::env::vars_os().filter(|(name, _)| !OTHERS.iter().any(|other| name == other));
        Settings::from_sources(flags, serve, environment)
    }

    /// The settings of a command that is done when it has its answer: only trouble is logged,
    /// unless more is asked for.
    fn quiet_settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = self.settings(None)?;
        if self.flags.log.is_none() && std::env::var_os("NEARFIELD_LOG").is_none() {
            settings.log = "warn".to_owned();
        }
        start_log(&settings)?;
        Ok(settings)
    }

    /// A way to the data.
    fn connect(&self, flags: &ClientFlags) -> anyhow::Result<Client> {
        Client::open(&self.quiet_settings()?, flags)
    }
}

/// Runs the program: parses the command line, runs the command, says why it failed.
pub fn run() -> ExitCode {
    let Cli { flags, json, quiet, color, command } = Cli::parse();
    let terminal = Terminal::new(json, quiet, color);
    let session = Session { flags, terminal };
    let ended = match command {
        Command::Index(args) => args.run(&session),
        Command::Search(args) => args.run(&session),
        Command::Get(args) => args.run(&session),
        Command::Delete(args) => args.run(&session),
        Command::Export(args) => args.run(&session),
        Command::Copy(args) => args.run(&session),
        Command::Backup(args) => args.run(&session),
        Command::Restore(args) => args.run(&session),
        Command::Check(args) => args.run(&session),
        Command::Repair(args) => args.run(&session),
        Command::Collections(args) => args.run(&session),
        Command::Stats(args) => args.run(&session),
        Command::Doctor(args) => args.run(&session),
        Command::Serve(args) => args.run(&session),
        Command::Demo(args) => args.run(&session),
        Command::Eval(args) => args.run(&session),
        Command::Model(args) => args.run(&session),
        Command::Completions(args) => args.run(&session),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => match Exit::of(&error) {
            Some(exit) => {
                terminal.error(told(&error));
                exit.into()
            }
            None => ExitCode::SUCCESS,
        },
    }
}

/// The error and its causes, without those that the words before them give already.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("disk full").context("writing a: disk full").context("exporting");
        assert_eq!(told(&error), "exporting: writing a: disk full");
    }
}
