//! `serve`, text to JSON over Redis Stack: Nearfield's server with it as the store, and the article's own stack.
//! Both search one index, which Nearfield has filled with vectors computed beforehand, on the same cores as Redis.

use std::num::NonZero;

use anyhow::Result;
use nearfield::service::{Config, Quantization, Service};
use tempfile::TempDir;

use super::{QueryMix, ServeArguments, ServerBench, SystemUnderTest, packages_with_vectors, search};
use crate::{
    global_options::GlobalOptions,
    packages,
    peer::{self, Peers},
    redis_server::RedisServer,
    report::Format,
    repository,
    server::{Launch, Server, free_address, pinned_command},
    vectors,
};

/// ef_search: set by the collection for Nearfield, with every query by the article's stack.
const EF_SEARCH: &str = "80";

type StartSystem = fn(&ServeArguments, &GlobalOptions, &RedisServer, &TempDir) -> Result<SystemUnderTest>;

/// Measures and prints one table per system.
pub(super) fn run(arguments: &ServeArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let model = global.model()?;
    let scratch = global.temporary_dir()?;
    let core = match arguments.server_cores.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let redis = RedisServer::start(scratch.path(), core)?;
    let (documents, vectors) = packages_with_vectors(arguments, global, &model)?;
    eprintln!("loading {} documents into Redis Stack", documents.len());
    let config = Config { store: redis.store(), ..global.service(scratch.path())? };
    let service = Service::open(config)?;
    let batch = NonZero::new(500).expect("500 is not 0");
    let schema = packages::own_schema(&model, Quantization::None);
    packages::fill(&service, schema, &documents, Some(&vectors), batch)?;
    service.close();
    drop((model, documents, vectors));
    let systems: &[StartSystem] = match arguments.peers {
        Peers::All => &[start_nearfield, start_article_stack],
        Peers::None => &[start_nearfield],
    };
    for start in systems {
        let system = start(arguments, global, &redis, &scratch)?;
        let corpus = packages_with_vectors(arguments, global, &global.model()?)?;
        let mut bench = ServerBench::of(system, arguments, global, QueryMix::Distinct, corpus)?;
        search(&mut bench, global, format)?;
    }
    Ok(())
}

fn start_nearfield(
    arguments: &ServeArguments,
    global: &GlobalOptions,
    redis: &RedisServer,
    scratch: &TempDir,
) -> Result<SystemUnderTest> {
    let options = ["--cpu", global.cpu().level().name(), "--query-cache-mib", "0", "--store", &redis.url()];
    let launch = Launch {
        data_dir: scratch.path().join("nearfield"),
        models_dir: global.models_dir()?,
        cores: arguments.server_cores.clone(),
        arguments: options.map(str::to_owned).to_vec(),
    };
    let server = Server::start(&launch)?;
    Ok(SystemUnderTest { name: "nearfield on Redis Stack", server, redis: Some(redis.pid()) })
}

fn start_article_stack(
    arguments: &ServeArguments,
    global: &GlobalOptions,
    redis: &RedisServer,
    scratch: &TempDir,
) -> Result<SystemUnderTest> {
    let peers = repository::path("bench/peers")?;
    let python = peer::environment("article_stack", &peers, &global.cache_dir)?;
    let address = free_address()?;
    let into = global.cache_dir.join(format!("onnx-{}", vectors::key_of(&global.model()?)));
    let mut command = pinned_command(&arguments.server_cores, &python);
    command
        .arg(peers.join("article_stack.py"))
        .args(["--port", &address.port().to_string(), "--redis", &redis.url()])
        .args(["--index", packages::NAME, "--prefix", &format!("{}:", packages::NAME)])
        .args(["--ef", EF_SEARCH])
        .arg("--model-dir")
        .arg(global.model_dir()?)
        .arg("--into")
        .arg(into);
    let server = Server::spawn(command, address, scratch.path().join("article.log"))?;
    Ok(SystemUnderTest { name: "article stack", server, redis: Some(redis.pid()) })
}
