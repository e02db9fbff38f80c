//! Fake servers that reply like cluster nodes with a search coordinator. No package registry has such
//! servers, so the replies are based on those of Redis 7.4 and, where a coordinator differs, on its
//! command table (the name of an index is not a key).

use std::{
    collections::BTreeMap,
    io::{BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The `FT.INFO` reply for the article index.
const INFO: &str = include_str!("../../src/backend/redis/recorded/info_resp2.txt");

/// The commands that a server received, each as its words.
type ReceivedCommands = Arc<Mutex<Vec<Vec<String>>>>;

/// Two primaries, which run until the test process ends.
pub(crate) struct CoordinatorCluster {
    received: BTreeMap<u16, ReceivedCommands>,
}

impl CoordinatorCluster {
    pub(crate) fn start() -> CoordinatorCluster {
        let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let received = ports.map(|port| (port, ReceivedCommands::default()));
        let cluster = CoordinatorCluster { received: BTreeMap::from(received) };
        for (listener, port) in listeners.into_iter().zip(ports) {
            let received = cluster.received[&port].clone();
            thread::spawn(move || {
                for client in listener.incoming() {
                    let (received, client) = (received.clone(), client.unwrap());
                    thread::spawn(move || serve_connection(&client, &received, ports));
                }
            });
        }
        cluster
    }

    /// With RESP2, in which the replies are written.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.received.keys().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis-cluster://{}?protocol=resp2", hosts.join(","))
    }

    /// The commands of this name that each server received.
    pub(crate) fn received(&self, name: &str) -> Vec<Vec<Vec<String>>> {
        let with_name = |received: &ReceivedCommands| {
            let received = received.lock().unwrap();
            received.iter().filter(|words| words[0] == name).cloned().collect()
        };
        self.received.values().map(with_name).collect()
    }
}

fn serve_connection(client: &TcpStream, received: &ReceivedCommands, ports: [u16; 2]) {
    let mut reader = BufReader::new(client);
    let mut writer = client;
    while let Some(words) = read_command(&mut reader) {
        let reply = reply(&words, ports);
        received.lock().unwrap().push(words);
        if writer.write_all(reply.replace('\n', "\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// The words of the next command; `None` if the client disconnected.
fn read_command(reader: &mut impl std::io::BufRead) -> Option<Vec<String>> {
    let mut read_part = |prefix: char| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let count: usize = line.trim_end().strip_prefix(prefix)?.parse().ok()?;
        if prefix == '$' {
            let mut word = vec![0; count + 2];
            reader.read_exact(&mut word).ok()?;
            word.truncate(count);
            return Some((count, String::from_utf8_lossy(&word).into_owned()));
        }
        Some((count, String::new()))
    };
    let (count, _) = read_part('*')?;
    (0..count).map(|_| read_part('$').map(|(_, word)| word)).collect()
}

fn reply(words: &[String], ports: [u16; 2]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let bulk = |text: &str| format!("${}\n{text}\n", text.len());
    match words.as_slice() {
        ["PING", ..] => "+PONG\n".to_owned(),
        ["INFO", ..] => {
            let lines = "redis_version:8.0.0\nrun_id:abc\nused_memory:1048576\nmaxmemory_policy:noeviction\ncluster_enabled:1\n";
            // Lines end with CRLF on the wire, which counts as two bytes.
            format!("${}\n{lines}\n", lines.len() + lines.lines().count())
        }
        ["MODULE", "LIST"] => {
            "*1\n*8\n$4\nname\n$6\nsearch\n$3\nver\n:80000\n$4\npath\n$1\nx\n$4\nargs\n*0\n".to_owned()
        }
        ["COMMAND", "INFO", name] => format!("*1\n*6\n{}:-1\n*1\n+readonly\n:0\n:0\n:0\n", bulk(name)),
        ["CLUSTER", "SLOTS"] => {
            let range = |first: u16, last: u16, port: u16| {
                format!("*3\n:{first}\n:{last}\n*3\n$9\n127.0.0.1\n:{port}\n$2\nid\n")
            };
            format!("*2\n{}{}", range(0, 8191, ports[0]), range(8192, 16_383, ports[1]))
        }
        ["CLUSTER", "NODES"] => bulk("ab 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-8191"),
        ["FT._LIST"] | ["HGETALL", ..] => "*0\n".to_owned(),
        ["FT.INFO", ..] => INFO.to_owned(),
        ["FT.SEARCH", ..] => {
            "*3\n:1\n$9\narticle:1\n*4\n$7\n__score\n$4\n0.25\n$5\ntitle\n$5\nHello\n".to_owned()
        }
        ["INCR", ..] | ["HSET", ..] => ":1\n".to_owned(),
        _ => "+OK\n".to_owned(),
    }
}
