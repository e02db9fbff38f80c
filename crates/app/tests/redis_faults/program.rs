//! `nearfield serve` as a process of its own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use ureq::{Agent, http::Response};

/// Longer than the program takes to start: beyond it the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) json: Value,
    pub(crate) took: Duration,
}

/// The running program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    url: String,
    log: Arc<Mutex<String>>,
    agent: Agent,
    _home: TempDir,
}

/// A client that takes every status as an answer.
pub(crate) fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(30)));
    Agent::new_with_config(config.build())
}

impl Program {
    /// Serves the store at a free port.
    pub(crate) fn serve(store: &str) -> Program {
        Program::serve_with(store, &[])
    }

    /// The same, with these flags.
    pub(crate) fn serve_with(store: &str, flags: &[&str]) -> Program {
        let home = TempDir::new().unwrap();
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("nearfield"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NEARFIELD_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--port", "0", "--log", "info", "--log-json"])
            .args(flags)
            .env("NEARFIELD_HOME", home.path())
            .env("NEARFIELD_STORE", store)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = mpsc::channel();
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let told: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(url) = told["fields"]["url"].as_str() {
                    // Asked for once; later lines have nobody to tell.
                    let _ = found.send(url.to_owned());
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let Ok(url) = address.recv_timeout(PATIENCE) else {
            panic!("it does not serve: {}", log.lock().unwrap());
        };
        Program { child, url, log, agent: agent(), _home: home }
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        while self.get("/readyz").status != 200 {
            assert!(Instant::now() < until, "{}", self.get("/readyz").json);
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        timed(|| self.agent.get(format!("{}{path}", self.url)).call())
    }

    /// A page that is no JSON.
    pub(crate) fn text(&self, path: &str) -> String {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Reply {
        timed(|| {
            let request = self.agent.put(format!("{}{path}", self.url)).content_type("application/json");
            request.send(body.to_string())
        })
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        timed(|| {
            let request = self.agent.post(format!("{}{path}", self.url)).content_type("application/json");
            request.send(body.to_string())
        })
    }
}

/// Makes a request, which has to be answered.
pub(crate) fn timed(call: impl FnOnce() -> Result<Response<ureq::Body>, ureq::Error>) -> Reply {
    let started = Instant::now();
    let mut answer = call().unwrap();
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().unwrap();
    let json = serde_json::from_str(&text).unwrap_or_default();
    Reply { status, json, took: started.elapsed() }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; a test that minds has seen it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
