//! Section 6.1: a server over a Redis Cluster of three primaries with one replica each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Claim, Verdict, api::Api, fixtures::Fixtures};
use crate::{
    redis_cluster::{self, NODE_TIMEOUT, REPLICAS},
    redis_server::RedisServer,
};

const PRIMARIES: usize = 3;

const COLLECTION: &str = "spread";

const DOCUMENTS: usize = 3000;

/// Limit for a failover: one to two node timeouts, which the cluster itself takes, and three seconds.
const FAILOVER_TIMEOUT: Duration = NODE_TIMEOUT.saturating_mul(2).saturating_add(Duration::from_secs(3));

/// A cluster, and a server over it with documents.
pub(super) struct ClusterFixture {
    api: Api,
    /// The primaries, then their replicas in the same order. Declared last, so that the server is stopped first.
    nodes: Vec<RedisServer>,
}

impl ClusterFixture {
    /// Starts both, and loads documents whose vectors are points on a line.
    pub(super) fn start(fixtures: &Fixtures<'_>) -> Result<ClusterFixture> {
        let nodes = redis_cluster::start_with_replicas(fixtures.dir.path(), &[None; PRIMARIES])?;
        let mut launch = fixtures.launch("on-cluster")?;
        launch.arguments = ["--store", &redis_cluster::url(&nodes[..PRIMARIES])].map(str::to_owned).into();
        let api = Api::start(&launch)?;
        api.recreate(COLLECTION, &json!({"algorithm": "flat", "metric": "l2"}))?;
        let documents: Vec<Value> = (0..DOCUMENTS)
            .map(|number| json!({"id": number.to_string(), "title": number.to_string(), "embedding": [number, 0, 0, 1]}))
            .collect();
        for documents in documents.chunks(1000) {
            api.write(COLLECTION, documents)?;
        }
        Ok(ClusterFixture { api, nodes })
    }

    /// The number of documents on each primary.
    fn shards(&self) -> Result<Vec<u64>> {
        let info = self.api.get(&format!("/collections/{COLLECTION}"))?.expect(200)?.body;
        let shards = info["shards"].as_object().with_context(|| format!("no shards in {info}"))?;
        Ok(shards.values().filter_map(Value::as_u64).collect())
    }

    /// Whether the ten documents nearest to the start of the line are found; an error if the result is wrong.
    pub(super) fn top_10_is_correct(&self) -> Result<bool> {
        let search = json!({"vector": [0, 0, 0, 1], "k": 10, "fields": []});
        let response = self.api.post(&format!("/collections/{COLLECTION}/search"), &search)?;
        if response.status == 503 {
            return Ok(false);
        }
        let ids: Vec<String> = response.hits()?.into_iter().map(|hit| hit.id).collect();
        let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        ensure!(ids == expected, "wrong result: {ids:?}");
        Ok(true)
    }
}

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "6.1-schema-on-each-shard",
        article: "create the same index definition on each shard (Redis propagates the schema)",
        peer: "it does not: FT.CREATE reaches one node only; redis-py finds 3 of the true top 10 [cluster]",
        check: |fixtures| {
            let cluster = fixtures.cluster()?;
            let (shards, is_correct) = (cluster.shards()?.len(), cluster.top_10_is_correct()?);
            Ok(Verdict::new(
                shards == PRIMARIES && is_correct,
                format!(
                    "{shards} primaries of {PRIMARIES} have an index; the true top 10 of {DOCUMENTS} documents are found: {is_correct}"
                ),
            ))
        },
    },
    Claim {
        id: "6.1-distribute-evenly",
        article: "distribute documents evenly over the shards",
        peer: "",
        check: |fixtures| {
            let shards = fixtures.cluster()?.shards()?;
            let mean = shards.iter().sum::<u64>() as f64 / shards.len().max(1) as f64;
            let most = shards.iter().max().copied().unwrap_or_default() as f64;
            Ok(Verdict::new(
                most <= 1.1 * mean,
                format!("{shards:?} documents on the primaries: at most {:.2} times the mean", most / mean),
            ))
        },
    },
    Claim {
        id: "6.1-replicas",
        article: "3 primary shards and 3 replicas; horizontal read/write scalability",
        peer: "failover of a killed primary took 23.5 s with default timeouts [wire README]",
        check: failover,
    },
    Claim {
        id: "9.4-cluster-slot-mismatch",
        article: "keys without a hash tag cause cross-slot errors",
        peer: "",
        check: |fixtures| {
            let shards = fixtures.cluster()?.shards()?;
            let loaded: u64 = shards.iter().sum();
            Ok(Verdict::new(
                loaded == DOCUMENTS as u64,
                format!(
                    "{loaded} of {DOCUMENTS} documents without a hash tag written in requests of 1,000, which are split by slot"
                ),
            ))
        },
    },
];

/// Kills a primary: until its replica takes over, searches fail, and no result is wrong.
fn failover(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    // Other rows must not use the cluster afterwards.
    fixtures.cluster()?;
    let mut cluster = fixtures.take_cluster().context("the cluster was just started")?;
    ensure!(cluster.nodes.len() == PRIMARIES * (1 + REPLICAS), "not every primary has a replica");
    drop(cluster.nodes.remove(0));
    let killed = Instant::now();
    let mut failed = 0;
    while !cluster.top_10_is_correct()? {
        failed += 1;
        ensure!(
            killed.elapsed() < 2 * FAILOVER_TIMEOUT,
            "no result {:?} after a primary was killed",
            killed.elapsed()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = killed.elapsed();
    Ok(Verdict::new(
        failed > 0 && took <= FAILOVER_TIMEOUT,
        format!(
            "a killed primary: {failed} searches rejected, none wrong, answered again after {:.1} s (cluster-node-timeout {:.1} s)",
            took.as_secs_f64(),
            NODE_TIMEOUT.as_secs_f64()
        ),
    ))
}
