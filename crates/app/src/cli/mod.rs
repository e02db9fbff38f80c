//! The command line. Commands reach the data through the HTTP interface (see `client`), except `copy`, which opens two
//! stores.

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
mod error;
mod eval;
mod exit;
mod export;
mod get;
mod healthcheck;
mod index;
mod interrupt;
mod man;
mod model;
mod output_file;
mod quiet_panics;
mod repair;
mod restore;
mod search;
mod serve;
mod session;
mod stats;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand, builder::styling};

use self::{
    exit::Exit,
    session::Session,
    terminal::{Color, Terminal},
};
use crate::{config::Flags, stderr};

#[cfg(any(fuzzing, test))]
pub(crate) use index::fuzzing;

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold())
    .placeholder(styling::AnsiColor::Cyan.on_default());

/// Real-time semantic search
#[derive(Debug, Parser)]
#[command(name = "nearfield", version, styles = STYLES, propagate_version = true, after_help = exit::HELP)]
#[command(after_long_help = concat!(
    "To get started:\n  nearfield model pull\n  nearfield index articles.csv\n  nearfield search \"how do I reset my password\"\n",
    "  nearfield serve\n\nWhile a server is using the data directory, other commands talk to it over HTTP; otherwise they open the \
     data directory themselves. With --store redis://..., every command connects to the Redis directly.\n\n",
    "Exit codes:\n  0    success\n  1    failure\n  2    invalid command line or configuration\n",
    "  3    not found\n  4    server, data directory or Redis unavailable\n  130  interrupted\n",
))]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Options of all commands")]
    flags: Flags,
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print only results, warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// When to use colours; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Larger than the others.
    Index(Box<index::IndexArgs>),
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
    Healthcheck(healthcheck::HealthcheckArgs),
    Demo(demo::DemoArgs),
    Eval(eval::EvalArgs),
    Model(model::ModelArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Parses the command line, runs the command, and prints its error.
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
        Command::Healthcheck(args) => args.run(&session),
        Command::Demo(args) => args.run(&session),
        Command::Eval(args) => args.run(&session),
        Command::Model(args) => args.run(&session),
        Command::Completions(args) => args.run(&session),
        Command::Man(args) => args.run(&session),
    };
    let exit = match ended {
        Ok(exit) => exit.into(),
        Err(error) => match Exit::of(&error) {
            Some(exit) => {
                terminal.error(error_chain(&error));
                exit.into()
            }
            None => ExitCode::SUCCESS,
        },
    };
    stderr::flush();
    exit
}

/// The error and its causes, without those that the text already contains.
fn error_chain(error: &anyhow::Error) -> String {
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
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn error_chain_omits_repeated_causes() {
        let error = anyhow::anyhow!("disk full").context("writing a: disk full").context("exporting");
        assert_eq!(error_chain(&error), "exporting: writing a: disk full");
    }
}
