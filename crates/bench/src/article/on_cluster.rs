//! Section 6.1: the service over a real Redis Cluster of three primaries with a replica each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Row, Verdict, site::Site, world::World};
use crate::{
    redis_cluster::{self, REPLICAS, SILENCE},
    redis_server::RedisServer,
};

const PRIMARIES: usize = 3;

const COLLECTION: &str = "spread";

const DOCUMENTS: usize = 3000;

/// What a replica may take to be in the place of its primary: what the cluster takes itself, which is
/// between one and two silences, and three seconds.
const FAILOVER_TIMEOUT: Duration = SILENCE.saturating_mul(2).saturating_add(Duration::from_secs(3));

/// A cluster, and a server over it with documents.
pub(super) struct OnCluster {
    site: Site,
    /// Primaries first, each replica in the place of its primary behind them. Last: the server ends before.
    nodes: Vec<RedisServer>,
}

impl OnCluster {
    /// Starts both, and loads documents that lie on a line.
    pub(super) fn start(world: &World<'_>) -> Result<OnCluster> {
        let nodes = redis_cluster::start_with_replicas(world.dir.path(), &[None; PRIMARIES])?;
        let mut launch = world.launch("on-cluster")?;
        launch.arguments = ["--store", &redis_cluster::url(&nodes[..PRIMARIES])].map(str::to_owned).into();
        let site = Site::start(&launch)?;
        site.fresh(COLLECTION, &json!({"algorithm": "flat", "metric": "l2"}))?;
        let documents: Vec<Value> = (0..DOCUMENTS)
            .map(|number| json!({"id": number.to_string(), "title": number.to_string(), "embedding": [number, 0, 0, 1]}))
            .collect();
        for documents in documents.chunks(1000) {
            site.write(COLLECTION, documents)?;
        }
        Ok(OnCluster { site, nodes })
    }

    /// The documents on each primary.
    fn shards(&self) -> Result<Vec<u64>> {
        let info = self.site.get(&format!("/collections/{COLLECTION}"))?.expect(200)?.body;
        let shards = info["shards"].as_object().with_context(|| format!("no shards in {info}"))?;
        Ok(shards.values().filter_map(Value::as_u64).collect())
    }

    /// Whether the ten nearest to the beginning of the line are found.
    pub(super) fn is_right(&self) -> Result<bool> {
        let search = json!({"vector": [0, 0, 0, 1], "k": 10, "fields": []});
        let reply = self.site.post(&format!("/collections/{COLLECTION}/search"), &search)?;
        if reply.status == 503 {
            return Ok(false);
        }
        let ids: Vec<String> = reply.hits()?.into_iter().map(|hit| hit.id).collect();
        let right: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        ensure!(ids == right, "a wrong answer: {ids:?}");
        Ok(true)
    }
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "6.1-schema-on-each-shard",
        article: "create the same index definition on each shard (Redis propagates the schema)",
        peer: "it does not: FT.CREATE reaches one node only; redis-py finds 3 of the true top 10 [cluster]",
        check: |world| {
            let cluster = world.cluster()?;
            let (shards, right) = (cluster.shards()?.len(), cluster.is_right()?);
            Ok(Verdict::new(
                shards == PRIMARIES && right,
                format!(
                    "{shards} primaries of {PRIMARIES} have an index; the true top 10 of {DOCUMENTS} documents are found: {right}"
                ),
            ))
        },
    },
    Row {
        id: "6.1-distribute-evenly",
        article: "distribute documents evenly over the shards",
        peer: "",
        check: |world| {
            let shards = world.cluster()?.shards()?;
            let mean = shards.iter().sum::<u64>() as f64 / shards.len().max(1) as f64;
            let most = shards.iter().max().copied().unwrap_or_default() as f64;
            Ok(Verdict::new(
                most <= 1.1 * mean,
                format!("{shards:?} documents on the primaries: {:.2} times the mean at most", most / mean),
            ))
        },
    },
    Row {
        id: "6.1-replicas",
        article: "3 primary shards and 3 replicas; horizontal read/write scalability",
        peer: "failover of a killed primary took 23.5 s with default timeouts [wire README]",
        check: replaced,
    },
    Row {
        id: "9.4-cluster-slot-mismatch",
        article: "keys without a hash tag cause cross-slot errors",
        peer: "",
        check: |world| {
            let shards = world.cluster()?.shards()?;
            let loaded: u64 = shards.iter().sum();
            Ok(Verdict::new(
                loaded == DOCUMENTS as u64,
                format!(
                    "{loaded} of {DOCUMENTS} documents without a hash tag written in requests of 1,000, which are divided by slot"
                ),
            ))
        },
    },
];

/// A primary is killed: until its replica has its place searches are refused, and none is wrong.
fn replaced(world: &mut World<'_>) -> Result<Verdict> {
    // It is of no use to other rows afterwards.
    world.cluster()?;
    let mut cluster = world.take_cluster().context("just started")?;
    ensure!(cluster.nodes.len() == PRIMARIES * (1 + REPLICAS), "every primary has a replica");
    drop(cluster.nodes.remove(0));
    let killed = Instant::now();
    let mut refused = 0;
    while !cluster.is_right()? {
        refused += 1;
        ensure!(
            killed.elapsed() < 2 * FAILOVER_TIMEOUT,
            "no answer {:?} after a primary was killed",
            killed.elapsed()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = killed.elapsed();
    Ok(Verdict::new(
        refused > 0 && took <= FAILOVER_TIMEOUT,
        format!(
            "a killed primary: {refused} searches refused, none wrong, answered again after {:.1} s (cluster-node-timeout {:.1} s)",
            took.as_secs_f64(),
            SILENCE.as_secs_f64()
        ),
    ))
}
