//! The server as a separate process, and checks of all its documents.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ledger::{DIM, Ledger, document, vector},
    random::Random,
};

/// Maximum duration of a start.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Searches per writer in each check.
const SEARCHES: usize = 5;

pub(crate) struct Server {
    child: Child,
    home: PathBuf,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    pub(crate) fn start(home: &Path) -> Server {
        Server::start_with(home, &[], &[])
    }

    /// A server started by `wrapper` (a command that runs its arguments) with these environment variables.
    pub(crate) fn start_with(home: &Path, wrapper: &[&str], variables: &[(&str, &str)]) -> Server {
        let log = File::options().create(true).append(true).open(home.join("log")).unwrap();
        Server::start_logging(home, log.into(), wrapper, variables)
    }

    /// As [`Server::start_with`], with another standard error.
    pub(crate) fn start_logging(
        home: &Path,
        log: Stdio,
        wrapper: &[&str],
        variables: &[(&str, &str)],
    ) -> Server {
        // Left over from a killed server; the new one writes it once it listens.
        let _ = std::fs::remove_file(home.join("data/server.json"));
        let program = assert_cmd::cargo::cargo_bin!("nearfield").to_str().unwrap();
        let command: Vec<&str> = wrapper.iter().copied().chain([program]).collect();
        let child = Command::new(command[0])
            .args(&command[1..])
            .envs(variables.iter().copied())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("NEARFIELD_HOME", home)
            .env_remove("NEARFIELD_DATA_DIR")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Server { child, home: home.to_owned(), address: String::new() }
    }

    pub(crate) fn wait_until_ready(&mut self) {
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < TIMEOUT, "not ready; see {}/log", self.home.display());
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}; see {}/log", self.home.display());
            }
            if let Ok(json) = std::fs::read(self.home.join("data/server.json"))
                && let Ok(info) = serde_json::from_slice::<Value>(&json)
            {
                self.address = info["url"].as_str().unwrap().to_owned();
                if get(&format!("{}/readyz", self.address)).is_ok_and(|(status, _)| status == 200) {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Sends SIGKILL to the process group.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and asserts a successful exit.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "stopped with {status}; see {}/log", self.home.display());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A memory figure of the process from /proc (`VmRSS:`, `VmHWM:`), in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&mut self, name: &str) {
        if self.child.try_wait().unwrap().is_none() {
            let kill = format!("kill -{name} -{}", self.child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
    }

    pub(crate) fn create_collection(&self) {
        let (status, body) =
            send("PUT", &format!("{}/collections/notes", self.address), &schema(16)).unwrap();
        assert_eq!(status, 201, "{body}");
    }

    /// Compares all stored documents with the ledgers, searches for some of them by vector, and returns
    /// their number.
    pub(crate) fn check(&self, ledgers: Vec<&mut Ledger>, random: &mut Random) -> usize {
        let mut found = self.versions();
        let count = found.len();
        let (_, response) = get(&format!("{}/collections/notes/count", self.address)).unwrap();
        assert_eq!(response["count"], count, "the index reports a different count");
        for ledger in ledgers {
            let prefix = format!("{}-", ledger.writer);
            let mut own = BTreeMap::new();
            found.retain(|id, version| match id.strip_prefix(&prefix) {
                Some(number) => {
                    own.insert(number.parse().unwrap(), *version);
                    false
                }
                None => true,
            });
            ledger.reconcile(&own);
            for (number, version) in ledger.sample(SEARCHES, random) {
                let id = ledger.id(number);
                let search = json!({"vector": vector(&id, version), "k": 1, "fields": ["version"]});
                let url = format!("{}/collections/notes/search", self.address);
                let (status, response) = send("POST", &url, &search).unwrap();
                assert_eq!(status, 200, "{response}");
                let hit = &response["results"][0];
                let found = (&hit["id"], &hit["fields"]["version"]);
                assert_eq!(found, (&json!(id), &json!(version)), "{response}");
            }
        }
        assert!(found.is_empty(), "no writer wrote {found:?}");
        count
    }

    /// The version of every stored document by id. Asserts that no document is torn.
    pub(crate) fn versions(&self) -> BTreeMap<String, u64> {
        let mut versions = BTreeMap::new();
        let mut after = String::new();
        loop {
            let url = format!("{}/collections/notes/documents?limit=1000&vectors=true{after}", self.address);
            let (status, page) = get(&url).unwrap();
            assert_eq!(status, 200, "{page}");
            for document_json in page["documents"].as_array().unwrap() {
                let (id, fields) = (document_json["id"].as_str().unwrap(), &document_json["fields"]);
                let version =
                    fields["version"].as_u64().unwrap_or_else(|| panic!("a torn document: {document_json}"));
                let number = id.rsplit_once('-').unwrap().1.parse().unwrap();
                let mut expected = document(id, number, version);
                expected["place"] =
                    json!({"base64": base64(&vector(id, version).map(f32::to_le_bytes).concat())});
                expected["parity"] = json!([expected["parity"]]);
                expected.as_object_mut().unwrap().remove("id");
                assert_eq!(fields, &expected, "a torn document");
                assert_eq!(versions.insert(id.to_owned(), version), None, "{id} is listed twice");
            }
            match page["next"].as_str() {
                Some(cursor) => after = format!("&after={cursor}"),
                None => return versions,
            }
        }
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// The schema with an HNSW graph of `m` links.
pub(crate) fn schema(m: usize) -> Value {
    json!({"fields": [
        {"name": "text", "kind": "text"},
        {"name": "version", "kind": "numeric"},
        {"name": "parity", "kind": "tag"},
        {"name": "place", "kind": "vector", "dim": DIM, "metric": "l2", "m": m},
    ]})
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

type SendResult = Result<(u16, Value), ureq::Error>;

pub(crate) fn get(url: &str) -> SendResult {
    send("GET", url, &Value::Null)
}

pub(crate) fn send(method: &str, url: &str, body: &Value) -> SendResult {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    send_as(method, url, "application/json", text)
}

/// Sends a request on a new connection. An incomplete response is an error.
pub(crate) fn send_as(method: &str, url: &str, content_type: &str, body: String) -> SendResult {
    send_with(&agent(), method, url, content_type, body)
}

/// A client that reuses its connection.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .proxy(None)
        .build()
        .into()
}

pub(crate) fn send_with(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    content_type: &str,
    body: String,
) -> SendResult {
    let (status, bytes) = send_raw(agent, method, url, &[("content-type", content_type)], body)?;
    let text = String::from_utf8(bytes).map_err(std::io::Error::other)?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// Sends a request and returns the status and the complete body.
pub(crate) fn send_raw(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<(u16, Vec<u8>), ureq::Error> {
    let request = ureq::http::Request::builder().method(method).uri(url);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut response = agent.run(request.body(body)?)?;
    Ok((response.status().as_u16(), response.body_mut().with_config().limit(1 << 30).read_to_vec()?))
}
