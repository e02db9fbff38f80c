//! `nearfield serve` as a separate process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;

/// A test fails if the program takes longer than this to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Response {
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

/// An HTTP client that returns every status as a response.
pub(crate) fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(30)));
    Agent::new_with_config(config.build())
}

impl Program {
    /// Serves the store on a free port.
    pub(crate) fn serve(store: &str) -> Program {
        Program::serve_with(store, &[])
    }

    /// [`Program::serve`] with additional flags.
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
        let (url_sender, url_receiver) = mpsc::channel();
        let (lines, shared_log) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(url) = entry["fields"]["url"].as_str() {
                    // Only the first URL is received; sending later ones fails.
                    let _ = url_sender.send(url.to_owned());
                }
                let mut shared_log = shared_log.lock().unwrap();
                shared_log.push_str(&line);
                shared_log.push('\n');
            }
        });
        let Ok(url) = url_receiver.recv_timeout(START_TIMEOUT) else {
            panic!("the server did not start: {}", log.lock().unwrap());
        };
        Program { child, url, log, agent: agent(), _home: home }
    }

    /// Waits until it is ready.
    pub(crate) fn wait_until_ready(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.get("/readyz").status != 200 {
            assert!(Instant::now() < deadline, "{}", self.get("/readyz").json);
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its log output.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        send_timed(|| self.agent.get(format!("{}{path}", self.url)).call())
    }

    /// The body of a response that is not JSON.
    pub(crate) fn get_text(&self, path: &str) -> String {
        let mut response = self.agent.get(format!("{}{path}", self.url)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Response {
        put(&self.agent, &format!("{}{path}", self.url), body)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        post(&self.agent, &format!("{}{path}", self.url), body)
    }
}

pub(crate) fn put(agent: &Agent, url: &str, body: &Value) -> Response {
    send_timed(|| agent.put(url).content_type("application/json").send(body.to_string()))
}

pub(crate) fn post(agent: &Agent, url: &str, body: &Value) -> Response {
    send_timed(|| agent.post(url).content_type("application/json").send(body.to_string()))
}

/// Sends a request, which must get a response, and measures the time.
fn send_timed(call: impl FnOnce() -> Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Response {
    let started = Instant::now();
    let mut response = call().unwrap();
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap();
    let json = serde_json::from_str(&text).unwrap_or_default();
    Response { status, json, took: started.elapsed() }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if the program has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
