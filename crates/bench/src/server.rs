//! The real server: the `nearfield` binary beside this one, in a process of its own.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long a server may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long it may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// Its data directory.
    pub(crate) data_dir: PathBuf,
    /// Parent of the model's directory.
    pub(crate) models_dir: PathBuf,
    /// Cores it is pinned to; all, if empty.
    pub(crate) cores: Vec<usize>,
    /// Additional arguments of `nearfield serve`.
    pub(crate) arguments: Vec<String>,
}

/// A running server, stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Its listening address.
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

/// The `nearfield` binary in this binary's directory.
pub(crate) fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("nearfield");
    ensure!(path.exists(), "{} does not exist: build it with `cargo build --release --bins`", path.display());
    Ok(path)
}

/// A command that runs `program` on these cores; on all, if the list is empty.
pub(crate) fn pinned_command(cores: &[usize], program: &Path) -> Command {
    if cores.is_empty() {
        return Command::new(program);
    }
    let list: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", &list.join(",")]).arg(program);
    taskset
}

impl Server {
    /// Starts a server on a free port of the loopback interface and waits until it is ready.
    pub(crate) fn start(launch: &Launch) -> Result<Server> {
        let address = free_address()?;
        let mut command = pinned_command(&launch.cores, &binary()?);
        fs::create_dir_all(&launch.data_dir)?;
        command
            .arg("serve")
            .args(["--listen", &address.to_string()])
            .arg("--data-dir")
            .arg(&launch.data_dir)
            .arg("--models-dir")
            .arg(&launch.models_dir)
            .args(&launch.arguments)
            // The server warns about environment variables it does not know.
            .env_remove("NEARFIELD_DATA");
        Server::spawn(command, address, launch.data_dir.with_extension("log"))
    }

    /// Runs `command`, which starts a server listening on `address`, and waits until `/readyz` reports ready.
    /// Standard error is written to the file `log`.
    pub(crate) fn spawn(mut command: Command, address: SocketAddr, log: PathBuf) -> Result<Server> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let mut server = Server { child, address, log };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Kills the process with SIGKILL, simulating a crash.
    pub(crate) fn kill(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
    }

    /// Whether the process is still running.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Its standard error output so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server exited with {status}: {}", self.log());
            }
            if ureq::get(self.url("/readyz")).call().is_ok_and(|reply| reply.status() == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the server was not ready within {} s: {}", READY_TIMEOUT.as_secs(), self.log())
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("the server did not stop within {} s and was killed", STOP_TIMEOUT.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("{error:#}");
        }
    }
}

/// A loopback address with a free port. If another process takes the port first, the server reports that and
/// exits.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
