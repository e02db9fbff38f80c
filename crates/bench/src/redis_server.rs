//! Redis with the search module, in a process of its own.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nearfield::service::{RedisStore, Store};
use serde_json::Value;
use tempfile::TempDir;

use crate::{repository, server::free_address};

/// How long the server may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a new index may take to scan the existing keys.
const SCAN_TIMEOUT: Duration = Duration::from_secs(600);

/// A service's command timeout.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server without persistence, killed when dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    /// Its listening address.
    pub(crate) address: SocketAddr,
    dir: TempDir,
    /// The directory of the Redis Stack installation.
    stack: PathBuf,
}

impl RedisServer {
    /// Starts a server on a free port of the loopback interface, pinned to `core` if one is given, with its
    /// working directory in `scratch`, and waits until it is ready. `tools/redis_stack.py` installs Redis Stack
    /// on first use.
    pub(crate) fn start(scratch: &Path, core: Option<usize>) -> Result<RedisServer> {
        RedisServer::start_with(scratch, core, &[])
    }

    /// Starts a server with additional arguments.
    pub(crate) fn start_with(scratch: &Path, core: Option<usize>, arguments: &[&str]) -> Result<RedisServer> {
        let stack = installed()?;
        let address = free_address()?;
        let dir = tempfile::Builder::new().prefix("redis-").tempdir_in(scratch)?;
        let program = stack.join("bin/redis-server");
        let mut command = match core {
            None => Command::new(program),
            Some(core) => {
                let mut taskset = Command::new("taskset");
                taskset.args(["-c", &core.to_string()]).arg(program);
                taskset
            }
        };
        command
            .env("LD_LIBRARY_PATH", stack.join("lib"))
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(dir.path())
            .arg("--loadmodule")
            .arg(stack.join("lib/redisearch.so"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("log"))?)
            .stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let mut server = RedisServer { child, address, dir, stack };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// This server as a service's store.
    pub(crate) fn store(&self) -> Store {
        store(self.url())
    }

    /// The reply to a command, as `redis-cli` prints it.
    pub(crate) fn command(&self, words: &[&str]) -> Result<String> {
        Ok(String::from_utf8(self.redis_cli(&[], words)?)?)
    }

    /// The bytes of a string reply.
    pub(crate) fn bytes(&self, words: &[&str]) -> Result<Vec<u8>> {
        let mut reply = self.redis_cli(&[], words)?;
        ensure!(reply.pop() == Some(b'\n'), "redis-cli printed no line for {words:?}");
        Ok(reply)
    }

    /// The reply to a command as JSON; maps are objects.
    pub(crate) fn json(&self, words: &[&str]) -> Result<Value> {
        let reply = self.redis_cli(&["--json"], words)?;
        // redis-cli prints NaN as it is, which JSON does not allow.
        let reply = String::from_utf8_lossy(&reply).replace(":nan", ":null").replace(":-nan", ":null");
        serde_json::from_str(&reply)
            .with_context(|| format!("redis-cli --json printed {reply} for {words:?}"))
    }

    fn redis_cli(&self, options: &[&str], words: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(self.stack.join("bin/redis-cli"));
        command.env("LD_LIBRARY_PATH", self.stack.join("lib")).stdin(Stdio::null());
        command.args(["-e", "-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
        command.args(options).args(words);
        let output = command.output().with_context(|| format!("run {command:?}"))?;
        let reply = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "redis-server replied to {words:?}: {reply}{errors}");
        Ok(output.stdout)
    }

    /// The `name:value` lines of a reply such as `INFO`'s.
    pub(crate) fn key_values(&self, words: &[&str]) -> Result<HashMap<String, String>> {
        let reply = self.command(words)?;
        let pairs = reply.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A number of `INFO memory`.
    pub(crate) fn memory(&self, name: &str) -> Result<f64> {
        let info = self.key_values(&["INFO", "memory"])?;
        let value = info.get(name).with_context(|| format!("INFO memory has no {name}"))?;
        value.parse().with_context(|| format!("{name} of INFO memory is {value}"))
    }

    /// Waits until a new index has scanned the existing keys, so that the scan does not slow down measurements.
    pub(crate) fn wait_until_scanned(&self, index: &str) -> Result<()> {
        let started = Instant::now();
        while info_number(&self.json(&["FT.INFO", index])?, "indexing")? != 0.0 {
            ensure!(
                started.elapsed() < SCAN_TIMEOUT,
                "index {index} has not scanned all keys after {} s",
                SCAN_TIMEOUT.as_secs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `FT.INFO` of an index; an error unless it holds `documents` documents and has rejected none.
    pub(crate) fn index_info(&self, index: &str, documents: usize) -> Result<Value> {
        let info = self.json(&["FT.INFO", index])?;
        let (held, failures) =
            (info_number(&info, "num_docs")?, info_number(&info, "hash_indexing_failures")?);
        ensure!(
            held == documents as f64 && failures == 0.0,
            "index {index} holds {held} documents and has rejected {failures}; expected {documents} documents"
        );
        Ok(info)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                bail!("redis-server exited with {status}: {}", self.log());
            }
            if ping(self.address).is_ok_and(|is_ready| is_ready) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("redis-server was not ready within {} s: {}", READY_TIMEOUT.as_secs(), self.log())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Redis or the cluster at `url` as a service's store. The command timeout is longer than the default: a
/// pipeline of 500 documents into a large graph keeps a server busy for most of a second, and bulk loading has
/// several in flight.
pub(crate) fn store(url: String) -> Store {
    Store::Redis(RedisStore { command_timeout: WRITE_TIMEOUT, ..RedisStore::new(url) })
}

/// Installs Redis Stack unless it is installed; returns its directory.
fn installed() -> Result<PathBuf> {
    let script = repository::path("tools/redis_stack.py")?;
    let output = Command::new("python3")
        .arg(&script)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    ensure!(output.status.success(), "{} exited with {}", script.display(), output.status);
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

fn ping(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply)?;
    Ok(&reply == b"+PONG\r\n")
}

/// A figure of `FT.INFO`: a number, or a string of digits.
pub(crate) fn info_number(info: &Value, name: &str) -> Result<f64> {
    let value = &info[name];
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok())
        .with_context(|| format!("FT.INFO has no number {name}: {info}"))
}
