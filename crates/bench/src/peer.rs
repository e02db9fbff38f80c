//! Peers: Python processes, each in its own virtual environment, that answer one JSON line with one JSON line,
//! so that their runs and Nearfield's can alternate.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::repository;

/// Which peers a sub-command measures besides Nearfield.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peers {
    /// All of them.
    All,
    /// None: no Python environment is needed.
    None,
}

/// A running peer, killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    name: String,
    child: Child,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `bench/peers/{name}_peer.py` with `arguments` on one core. Installs
    /// `bench/peers/{name}-requirements.txt` into `{cache_dir}/venv-{name}` first, unless that is up to date.
    pub(crate) fn start(name: &str, arguments: &[&str], cache_dir: &Path, core: usize) -> Result<Peer> {
        let peers = repository::path("bench/peers")?;
        let python = environment(name, &peers, cache_dir)?;
        let mut child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(&python)
            .arg(peers.join(format!("{name}_peer.py")))
            .args(arguments)
            // One core means one thread, whatever the default of the peer's libraries.
            .envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", python.display()))?;
        let requests = child.stdin.take().expect("the child's input is piped");
        let responses = BufReader::new(child.stdout.take().expect("the child's output is piped"));
        Ok(Peer { name: name.to_owned(), child, requests, responses })
    }

    /// Sends one request and waits for its response.
    pub(crate) fn request(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}").with_context(|| format!("send {request} to {}", self.name))?;
        let mut line = String::new();
        self.responses.read_line(&mut line).with_context(|| format!("read the response of {}", self.name))?;
        ensure!(!line.is_empty(), "{} exited without a response to {request}", self.name);
        let response: Value =
            serde_json::from_str(&line).with_context(|| format!("{} responded {line:?}", self.name))?;
        if let Some(error) = response.get("error") {
            bail!("{} failed to execute {request}: {error}", self.name);
        }
        Ok(response)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number in a peer's response.
pub(crate) fn number(response: &Value, name: &str) -> Result<f64> {
    response[name].as_f64().with_context(|| format!("the response has no number {name}: {response}"))
}

/// The Python interpreter of the peer's virtual environment, which is created if it does not match the
/// requirements.
pub(crate) fn environment(name: &str, peers: &Path, cache_dir: &Path) -> Result<PathBuf> {
    let requirements = peers.join(format!("{name}-requirements.txt"));
    let required =
        fs::read_to_string(&requirements).with_context(|| format!("read {}", requirements.display()))?;
    let venv = cache_dir.join(format!("venv-{name}"));
    let python = venv.join("bin/python");
    let installed = venv.join("installed-requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == required) {
        return Ok(python);
    }
    eprintln!("installing {} into {}", requirements.display(), venv.display());
    fs::create_dir_all(cache_dir)?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements))?;
    fs::write(&installed, required)?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} exited with {status}");
    Ok(())
}
