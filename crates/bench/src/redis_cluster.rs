//! A real Redis Cluster, each server a process of its own.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nearfield::service::Store;

use crate::{
    redis_server::{self, RedisServer},
    server::free_address,
};

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// How long the nodes may take to agree, and the time between two looks.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// Replicas a primary has, where it has any.
pub(crate) const REPLICAS: usize = 1;

/// Silence after which a server is taken for failed.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

/// Starts one primary for each of `cores`, held to that core, gives them equal shares of the slots and
/// waits until all serve. `redis-cli --cluster create` would refuse fewer than three.
pub(crate) fn start(scratch: &Path, cores: &[usize]) -> Result<Vec<RedisServer>> {
    let cores: Vec<Option<usize>> = cores.iter().copied().map(Some).collect();
    join(scratch, &cores, cores.len())
}

/// The same with a replica for each, which follow in the same order. No core is one of any.
pub(crate) fn start_with_replicas(scratch: &Path, cores: &[Option<usize>]) -> Result<Vec<RedisServer>> {
    let nodes = join(scratch, &cores.repeat(1 + REPLICAS), cores.len())?;
    let (primaries, replicas) = nodes.split_at(cores.len());
    for (primary, replica) in primaries.iter().cycle().zip(replicas) {
        replica.ask(&["CLUSTER", "REPLICATE", primary.ask(&["CLUSTER", "MYID"])?.trim_end()])?;
    }
    let follows = |replica: &RedisServer| -> Result<bool> {
        let said = replica.pairs(&["INFO", "replication"])?;
        Ok(said.get("master_link_status").is_some_and(|status| status == "up"))
    };
    wait("follow their primaries", || {
        replicas.iter().try_fold(true, |all, replica| Ok(all && follows(replica)?))
    })?;
    Ok(nodes)
}

/// Starts servers and joins them; the slots go to the first `primaries` of them.
fn join(scratch: &Path, cores: &[Option<usize>], primaries: usize) -> Result<Vec<RedisServer>> {
    let mut nodes = Vec::with_capacity(cores.len());
    let mut bus_ports = Vec::with_capacity(cores.len());
    let silence_ms = SILENCE.as_millis().to_string();
    for &core in cores {
        // Not the port and 10,000, which a free port may be too high for.
        let bus_port = free_address()?.port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus_port];
        let manners = ["--cluster-node-timeout", &silence_ms, "--cluster-require-full-coverage", "no"];
        nodes.push(RedisServer::start_with(scratch, core, &[cluster, manners].concat())?);
        bus_ports.push(bus_port);
    }
    for (number, node) in nodes.iter().enumerate() {
        // Distinct from the start: nodes with equal ones quarrel a while first.
        node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        if number < primaries {
            let bound = |number: usize| number * SLOTS / primaries;
            let (first, last) = (bound(number).to_string(), (bound(number + 1) - 1).to_string());
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        }
    }
    for (number, node) in nodes.iter().enumerate() {
        // Everyone to everyone: left to itself, a cluster gossips its members for seconds.
        for (other, bus_port) in nodes.iter().zip(&bus_ports).skip(number + 1) {
            let port = other.address.port().to_string();
            node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus_port])?;
        }
    }
    wait("join", || stands(&nodes))?;
    Ok(nodes)
}

fn wait(to: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        ensure!(
            started.elapsed() < JOIN_TIMEOUT,
            "the nodes of a cluster did not {to} within {} s",
            JOIN_TIMEOUT.as_secs()
        );
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Where a client finds these nodes.
pub(crate) fn url(nodes: &[RedisServer]) -> String {
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    format!("redis-cluster://{}", addresses.join(","))
}

/// These nodes as the store of a service.
pub(crate) fn store(nodes: &[RedisServer]) -> Store {
    redis_server::store(url(nodes))
}

/// Whether every node knows the others and sees all slots served.
fn stands(nodes: &[RedisServer]) -> Result<bool> {
    let (known, slots) = (nodes.len().to_string(), SLOTS.to_string());
    for node in nodes {
        let info = node.pairs(&["CLUSTER", "INFO"])?;
        let is = |name: &str, value: &str| info.get(name).is_some_and(|said| said == value);
        if !(is("cluster_state", "ok") && is("cluster_known_nodes", &known) && is("cluster_slots_ok", &slots))
        {
            return Ok(false);
        }
    }
    Ok(true)
}
