//! Measures Nearfield, and the peers it is compared with. Run it inside the repository:
//! caches and virtual environments go to `target/bench/`.

mod article;
mod commands;
mod corpus;
mod machine;
mod open_loop;
mod packages;
mod peer;
mod plot;
mod random;
mod redis_cluster;
mod redis_py;
mod redis_server;
mod report;
mod repository;
mod sample;
mod scifact;
mod server;
mod setting;
mod truth;
mod vectors;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{report::Format, setting::Setting};

/// The server's, so that what is measured in this process is what the server does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Nearfield, and the peers it is compared with.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Print one JSON object a line instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    setting: Setting,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Text to vector: microseconds a text by length and batch
    Embed(commands::embed::Arguments),
    /// The index by itself: rate and memory at equal recall beside hnswlib, faiss, usearch, SymphonyQG; the
    /// article's tables; growth; searching while writing
    Index(commands::index::Arguments),
    /// Bulk load: documents a second, bytes a document
    Load(commands::load::Arguments),
    /// Writes a second of one writer and of many, by when they are durable
    Durability(commands::durability::Arguments),
    /// A real Redis as the store, beside redis-py on the same server: loading, KNN, pipelines, memory
    Redis(commands::redis::Arguments),
    /// A Redis Cluster of one, two and three primaries as the store: agreement with exact search, the cost of
    /// asking all, loading, memory
    Cluster(commands::cluster::Arguments),
    /// Open-loop load on /search: rate, latency, memory, processor, recall
    Serve(commands::serve::Arguments),
    /// Ten times the searches a server can answer: those it takes, those it refuses, and itself afterwards
    Overload(commands::overload::Arguments),
    /// How soon a server with many documents is ready, after a good end and after a kill
    Restart(commands::restart::Arguments),
    /// Hours under everything at once: memory, descriptors, threads, disk, latency
    Soak(commands::soak::Arguments),
    /// The article, row by row: what it says, what its stack did, what we do
    Article(article::Arguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Counted before anything is held to one of them.
    machine::cores();
    let format = if arguments.json { Format::Json } else { Format::Table };
    let setting = &arguments.setting;
    match arguments.command {
        Command::Embed(arguments) => commands::embed::run(&arguments, setting, format),
        Command::Index(arguments) => commands::index::run(&arguments, setting, format),
        Command::Load(arguments) => commands::load::run(&arguments, setting, format),
        Command::Durability(arguments) => commands::durability::run(&arguments, setting, format),
        Command::Redis(arguments) => commands::redis::run(&arguments, setting, format),
        Command::Cluster(arguments) => commands::cluster::run(&arguments, setting, format),
        Command::Serve(arguments) => commands::serve::run(&arguments, setting, format),
        Command::Overload(arguments) => commands::overload::run(&arguments, setting, format),
        Command::Restart(arguments) => commands::restart::run(&arguments, setting, format),
        Command::Soak(arguments) => commands::soak::run(&arguments, setting, format),
        Command::Article(arguments) => article::run(&arguments, setting, format),
    }
}
