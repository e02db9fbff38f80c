//! A real Redis with the search module, as a process of its own.

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
use tempfile::TempDir;

use crate::{repository, server::free_address};

/// How long it may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a service waits for a command.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server that writes nothing to disk; killed when dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    /// Where it answers.
    pub(crate) address: SocketAddr,
    dir: TempDir,
    /// Where Redis Stack is installed.
    stack: PathBuf,
}

impl RedisServer {
    /// Starts one on a free port of the loopback interface, held to `core` if one is given, with
    /// its directory in `scratch`, and waits until it answers. Redis Stack is installed first,
    /// once, by `tools/redis_stack.py`.
    pub(crate) fn start(scratch: &Path, core: Option<usize>) -> Result<RedisServer> {
        RedisServer::start_with(scratch, core, &[])
    }

    /// Starts one with further arguments.
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

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where a client finds it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// It as the store of a service.
    pub(crate) fn store(&self) -> Store {
        store(self.url())
    }

    /// The reply to a command, as `redis-cli` prints it.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.stack.join("bin/redis-cli"));
        command.env("LD_LIBRARY_PATH", self.stack.join("lib")).stdin(Stdio::null());
        command.args(["-e", "-h", "127.0.0.1", "-p", &self.address.port().to_string()]).args(words);
        let output = command.output().with_context(|| format!("run {command:?}"))?;
        let said = String::from_utf8(output.stdout)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "redis-server answered {words:?}: {said}{errors}");
        Ok(said)
    }

    /// The lines `name:value` of a reply such as `INFO`'s.
    pub(crate) fn pairs(&self, words: &[&str]) -> Result<HashMap<String, String>> {
        let said = self.ask(words)?;
        let pairs = said.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                bail!("redis-server ended with {status}: {}", self.log());
            }
            if ping(self.address).is_ok_and(|pong| pong) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("redis-server did not answer within {} s: {}", READY_TIMEOUT.as_secs(), self.log())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Redis, or the cluster, at `url` as the store of a service. A pipeline of 500 documents into a large
/// graph is most of a second's work for a server, and several are under way when documents are loaded: a
/// write waits longer here than by default.
pub(crate) fn store(url: String) -> Store {
    Store::Redis(RedisStore { command_timeout: WRITE_TIMEOUT, ..RedisStore::new(url) })
}

/// The directory Redis Stack is installed in.
fn installed() -> Result<PathBuf> {
    let script = repository::path("tools/redis_stack.py")?;
    let output = Command::new("python3")
        .arg(&script)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    ensure!(output.status.success(), "{} ended with {}", script.display(), output.status);
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

fn ping(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"+PONG\r\n")
}
