//! A real Redis Cluster, each node a process of its own.

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

/// Hash slots of a cluster.
const SLOTS: usize = 16_384;

/// How long the nodes may take to form a cluster, and the interval at which that is checked.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Replicas per primary in a cluster with replicas.
pub(crate) const REPLICAS: usize = 1;

/// `cluster-node-timeout`: the silence after which a node is considered failed.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts one primary per element of `cores`, pinned to that core, assigns each an equal share of the slots and
/// waits until the cluster is available. (`redis-cli --cluster create` rejects fewer than three primaries.)
pub(crate) fn start(scratch: &Path, cores: &[usize]) -> Result<Vec<RedisServer>> {
    let cores: Vec<Option<usize>> = cores.iter().copied().map(Some).collect();
    join(scratch, &cores, cores.len())
}

/// The same with [`REPLICAS`] replicas per primary, listed after the primaries in the same order. `None` is any core.
pub(crate) fn start_with_replicas(scratch: &Path, cores: &[Option<usize>]) -> Result<Vec<RedisServer>> {
    let nodes = join(scratch, &cores.repeat(1 + REPLICAS), cores.len())?;
    let (primaries, replicas) = nodes.split_at(cores.len());
    for (primary, replica) in primaries.iter().cycle().zip(replicas) {
        replica.command(&["CLUSTER", "REPLICATE", primary.command(&["CLUSTER", "MYID"])?.trim_end()])?;
    }
    let is_synchronised = |replica: &RedisServer| -> Result<bool> {
        let info = replica.key_values(&["INFO", "replication"])?;
        Ok(info.get("master_link_status").is_some_and(|status| status == "up"))
    };
    wait("synchronise the replicas", || {
        replicas.iter().try_fold(true, |all, replica| Ok(all && is_synchronised(replica)?))
    })?;
    Ok(nodes)
}

/// Starts nodes and joins them into a cluster; the slots are assigned to the first `primaries`.
fn join(scratch: &Path, cores: &[Option<usize>], primaries: usize) -> Result<Vec<RedisServer>> {
    let mut nodes = Vec::with_capacity(cores.len());
    let mut bus_ports = Vec::with_capacity(cores.len());
    let node_timeout_ms = NODE_TIMEOUT.as_millis().to_string();
    for &core in cores {
        // The default, port + 10,000, may be above 65,535.
        let bus_port = free_address()?.port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus_port];
        let failover = ["--cluster-node-timeout", &node_timeout_ms, "--cluster-require-full-coverage", "no"];
        nodes.push(RedisServer::start_with(scratch, core, &[cluster, failover].concat())?);
        bus_ports.push(bus_port);
    }
    for (number, node) in nodes.iter().enumerate() {
        // Nodes that start with equal epochs first need time to resolve the conflict.
        node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        if number < primaries {
            let bound = |number: usize| number * SLOTS / primaries;
            let (first, last) = (bound(number).to_string(), (bound(number + 1) - 1).to_string());
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        }
    }
    for (number, node) in nodes.iter().enumerate() {
        // Every pair meets explicitly: discovery by gossip takes seconds.
        for (other, bus_port) in nodes.iter().zip(&bus_ports).skip(number + 1) {
            let port = other.address.port().to_string();
            node.command(&["CLUSTER", "MEET", "127.0.0.1", &port, bus_port])?;
        }
    }
    wait("form", || is_available(&nodes))?;
    Ok(nodes)
}

fn wait(to: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        ensure!(
            started.elapsed() < JOIN_TIMEOUT,
            "the cluster did not {to} within {} s",
            JOIN_TIMEOUT.as_secs()
        );
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The URL of a cluster of these nodes.
pub(crate) fn url(nodes: &[RedisServer]) -> String {
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    format!("redis-cluster://{}", addresses.join(","))
}

/// These nodes as a service's store.
pub(crate) fn store(nodes: &[RedisServer]) -> Store {
    redis_server::store(url(nodes))
}

/// Whether every node knows the others and all slots are served.
fn is_available(nodes: &[RedisServer]) -> Result<bool> {
    let (node_count, slots) = (nodes.len().to_string(), SLOTS.to_string());
    for node in nodes {
        let info = node.key_values(&["CLUSTER", "INFO"])?;
        let is = |name: &str, value: &str| info.get(name).is_some_and(|found| found == value);
        if !(is("cluster_state", "ok")
            && is("cluster_known_nodes", &node_count)
            && is("cluster_slots_ok", &slots))
        {
            return Ok(false);
        }
    }
    Ok(true)
}
