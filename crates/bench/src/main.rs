//! Benchmarks of Nearfield and of the peers it is compared with. Run it inside the repository:
//! caches and virtual environments go to `target/bench/`.

mod article;
mod commands;
mod corpus;
mod data;
mod global_options;
mod ground_truth;
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
mod vectors;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{global_options::GlobalOptions, report::Format};

/// The same allocator as the server's, so that in-process measurements are representative.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of Nearfield and of the peers it is compared with
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Print one JSON object per line instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Embedding: microseconds per text by length and batch size, compared with onnxruntime; quality
    Embed(commands::embed::EmbedArguments),
    /// The vector index alone: throughput and memory at equal recall, compared with hnswlib, faiss, usearch and
    /// SymphonyQG; the article's tables; growth; searching while writing
    Index(commands::index::IndexArguments),
    /// Bulk loading: documents per second, bytes per document
    Load(commands::load::LoadArguments),
    /// Writes per second of one writer and of many, by durability setting
    Durability(commands::durability::DurabilityArguments),
    /// Redis Stack as the store, compared with redis-py on the same server: loading, KNN, pipelines, memory
    Redis(commands::redis::RedisArguments),
    /// Redis Clusters of one, two and three primaries as the store: agreement with exact search, the cost of
    /// searching every primary, loading, memory
    Cluster(commands::cluster::ClusterArguments),
    /// Open-loop load on /search: throughput, latency, memory, CPU time, recall
    Serve(commands::serve::ServeArguments),
    /// Overload: ten times the searches a server can answer; goodput, rejections, recovery
    Overload(commands::overload::OverloadArguments),
    /// Time until a server with many documents is ready, after a clean stop and after SIGKILL
    Restart(commands::restart::RestartArguments),
    /// Hours of mixed load: memory, file descriptors, threads, disk, latency
    Soak(commands::soak::SoakArguments),
    /// The claims of the article, row by row: what it says, what its own stack does, what Nearfield does
    Article(article::ArticleArguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Counted before any thread is pinned to one core.
    machine::cores();
    let format = if arguments.json { Format::Json } else { Format::Table };
    let global = &arguments.global;
    match arguments.command {
        Command::Embed(arguments) => commands::embed::run(&arguments, global, format),
        Command::Index(arguments) => commands::index::run(&arguments, global, format),
        Command::Load(arguments) => commands::load::run(&arguments, global, format),
        Command::Durability(arguments) => commands::durability::run(&arguments, global, format),
        Command::Redis(arguments) => commands::redis::run(&arguments, global, format),
        Command::Cluster(arguments) => commands::cluster::run(&arguments, global, format),
        Command::Serve(arguments) => commands::serve::run(&arguments, global, format),
        Command::Overload(arguments) => commands::overload::run(&arguments, global, format),
        Command::Restart(arguments) => commands::restart::run(&arguments, global, format),
        Command::Soak(arguments) => commands::soak::run(&arguments, global, format),
        Command::Article(arguments) => article::run(&arguments, global, format),
    }
}
