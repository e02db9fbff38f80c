//! Runs the program in a temporary home directory.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
};

use assert_cmd::assert::{Assert, OutputAssertExt as _};
use tempfile::TempDir;

/// A home directory that is removed on drop.
pub(crate) struct TestHome {
    directory: TempDir,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl TestHome {
    pub(crate) fn new() -> TestHome {
        TestHome { directory: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The program, isolated from the machine's settings and from networks.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("nearfield"));
        for (name, _) in std::env::vars() {
            if name.starts_with("NEARFIELD_")
                || name.starts_with("HF_")
                || name.to_lowercase().ends_with("_proxy")
            {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .env("NEARFIELD_HOME", self.directory.path())
            .env("HF_HOME", self.path("hugging-face"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("HF_ENDPOINT", "http://127.0.0.1:1")
            .env("HF_HUB_OFFLINE", "1")
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts `nearfield serve` on a free port with additional arguments, and waits until it listens.
    pub(crate) fn serve(&self, args: &[&str]) -> ServeProcess {
        let mut child = self
            .command(&[&["serve", "--listen", "127.0.0.1:0"], args].concat())
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("serving") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server exited");
        }
        let url = &line[line.find("http").unwrap_or_else(|| panic!("{line}"))..];
        let url = url.split(|c: char| c == '"' || c.is_whitespace()).next().unwrap().to_owned();
        ServeProcess { child, log, url }
    }

    /// Runs the program.
    pub(crate) fn run(&self, args: &[&str]) -> ProgramOutput {
        output(self.command(args).assert())
    }

    /// Runs the program; asserts success.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output.out
    }

    /// Runs the program with `--json`, asserts success and parses the output.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// Runs the program; asserts that it fails with `code` and that the error contains `texts`.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, args: &[&str], texts: &[&str]) -> ProgramOutput {
        let output = self.run(args);
        assert_eq!(output.code, Some(code), "{args:?}: {output:?}");
        for text in texts {
            assert!(output.err.contains(text), "{args:?}: {text:?} is not in the error: {output:?}");
        }
        output
    }
}

/// A running `nearfield serve`, killed on drop.
pub(crate) struct ServeProcess {
    pub(crate) child: Child,
    /// The log after the line that reports the address.
    pub(crate) log: BufReader<ChildStderr>,
    pub(crate) url: String,
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        // Fails if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal, such as `TERM`.
#[cfg(unix)]
pub(crate) fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

pub(crate) fn output(assert: Assert) -> ProgramOutput {
    let output = assert.get_output();
    ProgramOutput {
        code: output.status.code(),
        out: String::from_utf8(output.stdout.clone()).unwrap(),
        err: String::from_utf8(output.stderr.clone()).unwrap(),
    }
}
