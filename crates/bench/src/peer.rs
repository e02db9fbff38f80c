//! A peer to compare with: a Python process in a virtual environment of its own that answers
//! one JSON line with one, so that its runs and ours can alternate.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::repository;

/// A running peer; ended when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    name: String,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `bench/peers/{name}_peer.py` with `arguments` on one core, installing what
    /// `bench/peers/{name}-requirements.txt` names into `{cache_dir}/venv-{name}` if that was not
    /// done yet.
    pub(crate) fn start(name: &str, arguments: &[&str], cache_dir: &Path, core: usize) -> Result<Peer> {
        let peers = repository::path("bench/peers")?;
        let python = environment(name, &peers, cache_dir)?;
        let mut child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(&python)
            .arg(peers.join(format!("{name}_peer.py")))
            .args(arguments)
            // One core means one thread, whatever a library under the peer would like.
            .envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", python.display()))?;
        let requests = child.stdin.take().expect("the child's input is piped");
        let answers = BufReader::new(child.stdout.take().expect("the child's output is piped"));
        Ok(Peer { name: name.to_owned(), child, requests, answers })
    }

    /// Sends one request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}").with_context(|| format!("send {request} to {}", self.name))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).with_context(|| format!("read the answer of {}", self.name))?;
        ensure!(!line.is_empty(), "{} ended without an answer to {request}", self.name);
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("{} answered {line:?}", self.name))?;
        if let Some(error) = answer.get("error") {
            bail!("{} could not {request}: {error}", self.name);
        }
        Ok(answer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number in a peer's answer.
pub(crate) fn number(answer: &Value, name: &str) -> Result<f64> {
    answer[name].as_f64().with_context(|| format!("the answer has no number {name}: {answer}"))
}

/// The Python of the peer's virtual environment, made and filled if it is not what the
/// requirements ask for.
pub(crate) fn environment(name: &str, peers: &Path, cache_dir: &Path) -> Result<PathBuf> {
    let requirements = peers.join(format!("{name}-requirements.txt"));
    let wanted =
        fs::read_to_string(&requirements).with_context(|| format!("read {}", requirements.display()))?;
    let venv = cache_dir.join(format!("venv-{name}"));
    let python = venv.join("bin/python");
    let installed = venv.join("installed-requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    eprintln!("installing {} into {}", requirements.display(), venv.display());
    fs::create_dir_all(cache_dir)?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements))?;
    fs::write(&installed, wanted)?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
