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

/// The commands a server received, each as its words.
type Sent = Arc<Mutex<Vec<Vec<String>>>>;

/// Two primaries. Their threads and ports live as long as the process.
pub(crate) struct CoordinatorCluster {
    sent: BTreeMap<u16, Sent>,
}

impl CoordinatorCluster {
    pub(crate) fn start() -> CoordinatorCluster {
        let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let sent = ports.map(|port| (port, Sent::default()));
        let cluster = CoordinatorCluster { sent: BTreeMap::from(sent) };
        for (listener, port) in listeners.into_iter().zip(ports) {
            let sent = cluster.sent[&port].clone();
            thread::spawn(move || {
                for client in listener.incoming() {
                    let (sent, client) = (sent.clone(), client.unwrap());
                    thread::spawn(move || converse(&client, &sent, ports));
                }
            });
        }
        cluster
    }

    /// With RESP2, in which the replies are written.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.sent.keys().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis-cluster://{}?protocol=resp2", hosts.join(","))
    }

    /// The commands of this name that each server received.
    pub(crate) fn sent(&self, name: &str) -> Vec<Vec<Vec<String>>> {
        let of_server = |sent: &Sent| {
            let sent = sent.lock().unwrap();
            sent.iter().filter(|words| words[0] == name).cloned().collect()
        };
        self.sent.values().map(of_server).collect()
    }
}

fn converse(client: &TcpStream, sent: &Sent, ports: [u16; 2]) {
    let mut reader = BufReader::new(client);
    let mut writer = client;
    while let Some(words) = command(&mut reader) {
        let reply = reply(&words, ports);
        sent.lock().unwrap().push(words);
        if writer.write_all(reply.replace('\n', "\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// The words of the next command; `None` if the client disconnected.
fn command(reader: &mut impl std::io::BufRead) -> Option<Vec<String>> {
    let mut number = |mark: char| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let count: usize = line.trim_end().strip_prefix(mark)?.parse().ok()?;
        if mark == '$' {
            let mut word = vec![0; count + 2];
            reader.read_exact(&mut word).ok()?;
            word.truncate(count);
            return Some((count, String::from_utf8_lossy(&word).into_owned()));
        }
        Some((count, String::new()))
    };
    let (count, _) = number('*')?;
    (0..count).map(|_| number('$').map(|(_, word)| word)).collect()
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
