//! Real Redis Stack servers, each on its own loopback port with its own data directory. Installed once
//! into `target/redis-stack` by `tools/redis_stack.py`.

mod client;
mod installation;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

pub use self::client::Reply;
use self::{client::RespClient, installation::Installation};

/// Whether Redis Stack is installed, which this attempts if necessary. `false` if the test is to be skipped; see
/// [`Requirement::Redis`](crate::requirement::Requirement::Redis).
pub fn is_installed() -> bool {
    installation::find().is_some()
}

/// A test fails if a server takes longer than this to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time between two checks of a starting server.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Ports below the ephemeral range. Otherwise a client that keeps connecting to the port of a dead
/// server could be assigned that port and connect to itself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Ports to try, since other tests start servers at the same time.
const PORTS_TRIED: usize = 50;

/// Files in a server's directory.
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// RedisOptions for starting a server.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The default user's password.
    pub password: Option<&'static str>,
    /// An ACL user with password; disables the default user.
    pub user: Option<(&'static str, &'static str)>,
    /// Whether every write is on disk before it is acknowledged, so that it survives
    /// [`RedisStack::restart`].
    pub append_only: bool,
    /// Whether to listen for TLS on an additional port, with the certificate
    /// [`RedisStack::certificate`].
    pub tls: bool,
    /// Starts a cluster node, alone at first, with this node timeout.
    pub cluster_node_timeout_ms: Option<u32>,
    /// Additional arguments, such as `["--maxmemory", "64mb"]`.
    pub arguments: &'static [&'static str],
}

/// A server; killed when dropped.
#[derive(Debug)]
pub struct RedisStack {
    installation: Installation,
    options: RedisOptions,
    port: u16,
    /// The TLS port.
    tls_port: Option<u16>,
    /// The cluster bus port.
    bus_port: Option<u16>,
    dir: TempDir,
    /// `None` while it is killed.
    child: Option<Child>,
}

impl RedisStack {
    /// A server without password or persistence; see [`RedisStack::start`].
    pub fn plain() -> Option<RedisStack> {
        RedisStack::start(RedisOptions::default())
    }

    /// Starts a server and waits until it replies. `None` if the test is to be skipped; see
    /// [`Requirement::Redis`](crate::requirement::Requirement::Redis).
    pub fn start(options: RedisOptions) -> Option<RedisStack> {
        let mut stack = RedisStack::reserve(options)?;
        for _ in 0..PORTS_TRIED {
            stack.spawn();
            if stack.wait_until_ready() {
                return Some(stack);
            }
            stack.port = free_port();
            stack.tls_port = stack.tls_port.map(|_| free_port());
            stack.bus_port = stack.bus_port.map(|_| free_port());
        }
        panic!("none of {PORTS_TRIED} ports could be used: {}", stack.log());
    }

    /// A server that is not started yet, with its port; [`RedisStack::restart`] starts it.
    pub fn reserve(options: RedisOptions) -> Option<RedisStack> {
        let installation = installation::find()?;
        let dir = tempfile::Builder::new().prefix("nearfield-redis-").tempdir().unwrap();
        let tls_port = options.tls.then(|| {
            let generated = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            fs::write(dir.path().join(CERTIFICATE), generated.cert.pem()).unwrap();
            fs::write(dir.path().join(KEY), generated.signing_key.serialize_pem()).unwrap();
            free_port()
        });
        let bus_port = options.cluster_node_timeout_ms.map(|_| free_port());
        Some(RedisStack { installation, options, port: free_port(), tls_port, bus_port, dir, child: None })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The cluster bus port.
    pub fn bus_port(&self) -> u16 {
        self.bus_port.expect("a node of a cluster")
    }

    /// Whether it was started and not killed.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// The URL for clients, with user and password if required.
    pub fn url(&self) -> String {
        let login = match (self.options.user, self.options.password) {
            (Some((user, password)), _) => format!("{user}:{password}@"),
            (None, Some(password)) => format!(":{password}@"),
            (None, None) => String::new(),
        };
        match self.tls_port {
            Some(port) => format!("rediss://{login}127.0.0.1:{port}/0"),
            None => format!("redis://{login}127.0.0.1:{}/0", self.port),
        }
    }

    /// The certificate that clients have to trust.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join(CERTIFICATE)
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.running().id()
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Sends one command over a new connection (RESP2).
    pub fn command<W: AsRef<[u8]>>(&self, words: &[W]) -> Reply {
        self.try_command(words).unwrap()
    }

    /// [`RedisStack::command`] to a server that may be down.
    pub fn try_command<W: AsRef<[u8]>>(&self, words: &[W]) -> std::io::Result<Reply> {
        self.connect().and_then(|mut client| client.call(words))
    }

    /// SIGKILL: data that is not on disk is lost, and connections are closed.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server is running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGSTOP: connections stay open, but there are no replies.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let (_, status) =
            waitpid(Some(Pid::from_child(self.running())), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "the server exited: {}", self.log());
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts the server again with the same port and data directory, killing it first if it runs, and
    /// waits until it replies.
    pub fn restart(&mut self) {
        self.restart_without_waiting();
        assert!(self.wait_until_ready(), "the server exited: {}", self.log());
    }

    /// [`RedisStack::restart`] without waiting.
    pub fn restart_without_waiting(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        self.spawn();
    }

    fn spawn(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(self.installation.server());
        command
            .env("LD_LIBRARY_PATH", self.installation.libraries())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(["--save", "", "--enable-debug-command", "local"])
            .arg("--loadmodule")
            .arg(self.installation.search_module())
            .args(self.options.arguments);
        if let Some(port) = self.tls_port {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", CERTIFICATE, "--tls-key-file", KEY]);
        }
        if let (Some(timeout_ms), Some(port)) = (self.options.cluster_node_timeout_ms, self.bus_port) {
            command.args(["--cluster-enabled", "yes", "--cluster-port", &port.to_string()]);
            command.args(["--cluster-node-timeout", &timeout_ms.to_string()]);
            command.args(["--cluster-announce-ip", "127.0.0.1"]);
            // A replica is synchronized at once instead of waiting for further replicas.
            command.args(["--repl-diskless-sync-delay", "0"]);
        }
        if self.options.append_only {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        if let Some(password) = self.options.password {
            command.args(["--requirepass", password]);
        }
        if let Some((user, password)) = self.options.user {
            command.args(["--user", "default", "off"]);
            command.args(["--user", user, "on", &format!(">{password}"), "~*", "&*", "+@all"]);
        }
        let spawned = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(spawned.unwrap());
    }

    /// Waits until the server replies; `false` if it exits first.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_ready() {
            let child = self.child.as_mut().expect("it was just started");
            if child.try_wait().unwrap().is_some() {
                self.child = None;
                return false;
            }
            assert!(Instant::now() < deadline, "the server does not reply: {}", self.log());
            thread::sleep(POLL_INTERVAL);
        }
        true
    }

    /// Whether this process (and not another one on the same port) replies and has loaded its data.
    fn is_ready(&self) -> bool {
        let Ok(mut client) = self.connect() else { return false };
        let process_id = format!("process_id:{}\r\n", self.pid());
        matches!(client.call(&["PING"]), Ok(Reply::Text(pong)) if pong == b"PONG")
            && matches!(client.call(&["INFO", "server"]), Ok(Reply::Text(info)) if String::from_utf8_lossy(&info).contains(&process_id))
    }

    fn connect(&self) -> std::io::Result<RespClient> {
        let login = self.options.user.or(self.options.password.map(|password| ("default", password)));
        RespClient::open(self.port, login)
    }

    fn running(&self) -> &Child {
        self.child.as_ref().expect("the server is running")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.running()), signal).unwrap();
    }

    fn log_path(&self) -> impl AsRef<Path> + use<> {
        self.dir.path().join("server.log")
    }
}

impl Drop for RedisStack {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// A port that is currently unused.
fn free_port() -> u16 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let first = nanos.wrapping_mul(0x9e37_79b9) ^ std::process::id().wrapping_mul(0x85eb_ca6b);
    let count = PORTS.len() as u32;
    (0..count)
        .map(|step| PORTS.start + ((first.wrapping_add(step * 7) % count) as u16))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("some port is free")
}
