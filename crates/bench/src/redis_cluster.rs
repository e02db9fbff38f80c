//! A real Redis Cluster of primaries alone, each a process of its own.

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

/// Starts one primary for each of `cores`, held to that core, gives them equal shares of the slots and
/// waits until all serve. `redis-cli --cluster create` would refuse fewer than three.
pub(crate) fn start(scratch: &Path, cores: &[usize]) -> Result<Vec<RedisServer>> {
    let mut nodes = Vec::with_capacity(cores.len());
    let mut bus_ports = Vec::with_capacity(cores.len());
    for &core in cores {
        // Not the port and 10,000, which a free port may be too high for.
        let bus_port = free_address()?.port().to_string();
        let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus_port];
        nodes.push(RedisServer::start_with(scratch, Some(core), &arguments)?);
        bus_ports.push(bus_port);
    }
    for (number, node) in nodes.iter().enumerate() {
        let bound = |number: usize| number * SLOTS / nodes.len();
        let (first, last) = (bound(number).to_string(), (bound(number + 1) - 1).to_string());
        // Distinct from the start: nodes with equal ones quarrel a while first.
        node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        // Everyone to everyone: left to itself, a cluster gossips its members for seconds.
        for (other, bus_port) in nodes.iter().zip(&bus_ports).skip(number + 1) {
            let port = other.address.port().to_string();
            node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus_port])?;
        }
    }
    let started = Instant::now();
    while !stands(&nodes)? {
        ensure!(
            started.elapsed() < JOIN_TIMEOUT,
            "{} nodes of a cluster did not join within {} s",
            nodes.len(),
            JOIN_TIMEOUT.as_secs()
        );
        std::thread::sleep(LOOK);
    }
    Ok(nodes)
}

/// These nodes as the store of a service.
pub(crate) fn store(nodes: &[RedisServer]) -> Store {
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    redis_server::store(format!("redis-cluster://{}", addresses.join(",")))
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
