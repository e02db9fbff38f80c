//! `serve`, text to JSON over a Redis Stack: our server with it as the store, and the article's own stack.
//! Both ask one index, which ours made and filled with ready vectors, on the same cores as the Redis.

use std::num::NonZero;

use anyhow::Result;
use nearfield::service::{Config, Quantization, Service};
use tempfile::TempDir;

use super::{Arguments, Bench, Mix, System, packages_with_vectors, search};
use crate::{
    packages, peer,
    redis_server::RedisServer,
    report::Format,
    repository,
    server::{Launch, Server, free_address, held_to},
    setting::Setting,
    vectors,
};

/// The graph's breadth of search, ours by the collection, the article's with every query.
const EF_SEARCH: &str = "80";

/// Measures and prints, a table for each of the two.
pub(super) fn run(arguments: &Arguments, setting: &Setting, format: Format) -> Result<()> {
    let model = setting.model()?;
    let scratch = tempfile::tempdir_in(&setting.cache_dir)?;
    let core = match arguments.server_cores.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let redis = RedisServer::start(scratch.path(), core)?;
    let (documents, vectors) = packages_with_vectors(arguments, setting, &model)?;
    eprintln!("loading {} documents into Redis Stack", documents.len());
    let config = Config { store: redis.store(), ..setting.service(scratch.path())? };
    let service = Service::open(config)?;
    let batch = NonZero::new(500).expect("500 is not 0");
    let schema = packages::own_schema(&model, Quantization::None);
    packages::fill(&service, schema, &documents, Some(&vectors), batch)?;
    service.close();
    drop((model, documents, vectors));
    for start in [ours, the_articles] {
        let system = start(arguments, setting, &redis, &scratch)?;
        let corpus = packages_with_vectors(arguments, setting, &setting.model()?)?;
        let mut bench = Bench::of(system, arguments, setting, Mix::Distinct, corpus)?;
        search(&mut bench, setting, format)?;
    }
    Ok(())
}

fn ours(arguments: &Arguments, setting: &Setting, redis: &RedisServer, scratch: &TempDir) -> Result<System> {
    let given = ["--cpu", setting.cpu().level().name(), "--query-cache-mib", "0", "--store", &redis.url()];
    let launch = Launch {
        data_dir: scratch.path().join("ours"),
        models_dir: setting.models_dir()?,
        cores: arguments.server_cores.clone(),
        arguments: given.map(str::to_owned).to_vec(),
    };
    let server = Server::start(&launch)?;
    Ok(System { name: "nearfield on Redis Stack", server, redis: Some(redis.pid()) })
}

fn the_articles(
    arguments: &Arguments,
    setting: &Setting,
    redis: &RedisServer,
    scratch: &TempDir,
) -> Result<System> {
    let peers = repository::path("bench/peers")?;
    let python = peer::environment("article_stack", &peers, &setting.cache_dir)?;
    let address = free_address()?;
    let into = setting.cache_dir.join(format!("onnx-{}", vectors::key_of(&setting.model()?)));
    let mut command = held_to(&arguments.server_cores, &python);
    command
        .arg(peers.join("article_stack.py"))
        .args(["--port", &address.port().to_string(), "--redis", &redis.url()])
        .args(["--index", packages::NAME, "--prefix", &format!("{}:", packages::NAME)])
        .args(["--ef", EF_SEARCH])
        .arg("--model-dir")
        .arg(setting.model_dir()?)
        .arg("--into")
        .arg(into);
    let server = Server::spawn(command, address, scratch.path().join("article.log"))?;
    Ok(System { name: "the article's", server, redis: Some(redis.pid()) })
}
