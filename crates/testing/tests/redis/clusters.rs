//! The test clusters: they form, migrate slots and survive the loss of a primary.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use testing::{
    redis_cluster::{ClusterOptions, RedisCluster, SLOTS},
    redis_stack::{RedisOptions, RedisStack, Reply},
};

fn text(text: &str) -> Reply {
    Reply::Text(text.as_bytes().to_vec())
}

/// Creates an index on a primary. Its name hashes to a slot that the primary owns.
fn create_index(cluster: &RedisCluster, primary: u16, prefix: &str) -> String {
    let is_owned = |name: &String| cluster.owner(cluster.slot(name)) == primary;
    let name = (0..).map(|tag| format!("idx:{{{tag}}}")).find(is_owned).unwrap();
    let schema = format!("FT.CREATE {name} ON HASH PREFIX 1 {prefix} SCHEMA title TEXT");
    let created = cluster.command(primary, &schema.split(' ').collect::<Vec<_>>());
    assert_eq!(created, text("OK"), "{name}");
    name
}

fn count_documents(cluster: &RedisCluster, primary: u16, index: &str) -> i64 {
    match cluster.command(primary, &["FT.SEARCH", index, "*", "NOCONTENT", "LIMIT", "0", "0"]) {
        Reply::Array(hits) => match hits.first() {
            Some(Reply::Integer(count)) => *count,
            other => panic!("a count: {other:?}"),
        },
        other => panic!("FT.SEARCH: {other:?}"),
    }
}

fn write(cluster: &RedisCluster, id: u16) {
    let key = format!("article:{id}");
    let primary = cluster.owner(cluster.slot(&key));
    assert_eq!(cluster.command(primary, &["HSET", &key, "title", &key]), Reply::Integer(1));
}

#[test]
fn a_cluster_forms_and_every_primary_searches_its_own_documents() {
    let Some(cluster) = RedisCluster::start() else { return };
    let (primaries, replicas) = (cluster.primaries(), cluster.replicas());
    assert_eq!((primaries.len(), replicas.len()), (3, 3));
    assert!(cluster.ports()[..3].iter().all(|port| cluster.url().contains(&format!("127.0.0.1:{port}"))));
    for primary in &primaries {
        assert_eq!(cluster.replicas_of(*primary).len(), 1);
    }
    let bounds: Vec<u16> = [0, 5_461, 10_922, SLOTS - 1].iter().map(|slot| cluster.owner(*slot)).collect();
    assert_eq!(bounds, [primaries[0], primaries[1], primaries[2], primaries[2]]);

    let indexes: Vec<String> =
        primaries.iter().map(|primary| create_index(&cluster, *primary, "article:")).collect();
    for id in 0..60 {
        write(&cluster, id);
    }
    let counts: Vec<i64> = primaries
        .iter()
        .zip(&indexes)
        .map(|(primary, index)| count_documents(&cluster, *primary, index))
        .collect();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(counts.iter().sum::<i64>(), 60);
}

#[test]
fn slots_migrate_with_their_documents() {
    let Some(cluster) = RedisCluster::start() else { return };
    let [from, to, _] = cluster.primaries()[..] else { panic!("three primaries") };
    let slot = cluster.slot("article:1");
    let (from, to) = if cluster.owner(slot) == from { (from, to) } else { (cluster.owner(slot), from) };
    for id in 0..30 {
        let key = format!("article:{{article:1}}:{id}");
        assert_eq!(cluster.command(from, &["SET", &key, "value"]), text("OK"));
    }

    cluster.begin_migration(from, to, slot);
    assert!(cluster.migrate_some(from, to, slot, "1"));
    let redirected = (0..30).filter(|id| {
        let key = format!("article:{{article:1}}:{id}");
        let Reply::Error(error) = cluster.command(from, &["GET", &key]) else { return false };
        assert_eq!(error, format!("ASK {slot} 127.0.0.1:{to}"));
        true
    });
    assert_eq!(redirected.count(), 1, "one of the documents has been migrated");

    let (first, last) = (slot.saturating_sub(2), (slot + 2).min(SLOTS - 1));
    for slot in first..=last {
        if cluster.owner(slot) == from {
            cluster.migrate_slots(from, to, slot..=slot);
        }
    }
    assert_eq!(cluster.owner(slot), to);
    for id in 0..30 {
        let key = format!("article:{{article:1}}:{id}");
        assert_eq!(
            cluster.command(from, &["GET", &key]),
            Reply::Error(format!("MOVED {slot} 127.0.0.1:{to}"))
        );
        assert_eq!(cluster.command(to, &["GET", &key]), text("value"));
    }
    cluster.wait_until_healthy();
}

#[test]
fn a_replica_replaces_a_killed_primary_which_returns_as_a_replica() {
    let options = ClusterOptions { node_timeout_ms: 500, ..ClusterOptions::default() };
    let Some(mut cluster) = RedisCluster::with(options) else { return };
    write(&cluster, 1);
    let primary = cluster.owner(cluster.slot("article:1"));
    let [replica] = cluster.replicas_of(primary)[..] else { panic!("one replica") };
    assert_eq!(cluster.command(primary, &["WAIT", "1", "10000"]), Reply::Integer(1));

    cluster.kill(primary);
    cluster.wait_until_primary(replica);
    cluster.wait_until_healthy();
    assert_eq!(cluster.command(replica, &["HGET", "article:1", "title"]), text("article:1"));

    cluster.restart(primary);
    cluster.wait_for("restored", |cluster| cluster.replicas_of(replica) == [primary]);
    cluster.wait_until_healthy();

    cluster.pause(replica);
    cluster.wait_until_primary(primary);
    cluster.resume(replica);
    cluster.wait_for("restored", |cluster| cluster.replicas_of(primary) == [replica]);
    cluster.wait_until_healthy();
    assert_eq!(cluster.command(primary, &["HGET", "article:1", "title"]), text("article:1"));
}

#[test]
fn closes_all_client_connections_but_not_those_between_nodes() {
    let Some(cluster) = RedisCluster::start() else { return };
    let mut connections: Vec<TcpStream> =
        cluster.ports().iter().map(|port| TcpStream::connect(("127.0.0.1", *port)).unwrap()).collect();
    for connection in &mut connections {
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection.write_all(b"PING\r\n").unwrap();
        let mut pong = [0; 7];
        connection.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"+PONG\r\n");
    }
    cluster.close_client_connections();
    for connection in &mut connections {
        assert_eq!(connection.read(&mut [0; 1]).unwrap(), 0, "the connection is closed");
    }
    cluster.wait_until_healthy();
}

/// Runs `tools/redis_cluster.py` on a directory.
fn script(action: &str, port: u16, dir: &Path) -> Output {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
    let mut command = Command::new("python3");
    command.arg(tools.join("redis_cluster.py")).args([action, "--port", &port.to_string(), "--dir"]).arg(dir);
    command.output().unwrap()
}

/// Stops the nodes of a directory when dropped.
struct StopOnDrop<'d>(u16, &'d Path);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        script("stop", self.0, self.1);
    }
}

#[test]
fn the_script_starts_and_stops_a_cluster() {
    if RedisStack::reserve(RedisOptions::default()).is_none() {
        return;
    }
    let dir = tempfile::Builder::new().prefix("nearfield-redis-").tempdir().unwrap();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let are_free = |first: &u16| (*first..first + 6).all(|port| is_free(port) && is_free(port + 10_000));
    // Other tests start servers at the same time; if a port is taken, the next range is tried.
    let begin = 11_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 8;
    let mut ports = (begin..20_000).step_by(6).filter(are_free).take(5);
    let (port, first_output) = ports
        .find_map(|port| {
            let dir = dir.path().join(port.to_string());
            let started = script("start", port, &dir);
            if !started.status.success() {
                eprintln!("{}", String::from_utf8_lossy(&started.stderr));
                script("stop", port, &dir);
            }
            started.status.success().then_some((port, started.stdout))
        })
        .expect("some ports are free");
    let dir = dir.path().join(port.to_string());
    let _stop = StopOnDrop(port, &dir);

    let hosts: Vec<String> = (port..port + 3).map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(String::from_utf8(first_output).unwrap(), format!("redis-cluster://{}\n", hosts.join(",")));
    let status = script("status", port, &dir);
    let status_text = String::from_utf8(status.stdout).unwrap();
    assert!(status.status.success(), "{status_text}");
    assert_eq!(
        (status_text.matches("  primary  ").count(), status_text.matches("  replica  ").count()),
        (3, 3),
        "{status_text}"
    );
    let again = script("start", port, &dir);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(
        String::from_utf8(script("status", port, &dir).stdout).unwrap(),
        status_text,
        "the same processes are running"
    );

    let stopped = String::from_utf8(script("stop", port, &dir).stdout).unwrap();
    assert!(stopped.starts_with("6 nodes stopped"), "{stopped}");
    assert!(is_free(port));
    assert_eq!(script("status", port, &dir).status.code(), Some(1));
}
