//! Finding or installing Redis Stack.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::requirement::Requirement;

/// The directory created by `tools/redis_stack.py`.
#[derive(Clone, Debug)]
pub(crate) struct Installation(PathBuf);

impl Installation {
    pub(crate) fn server(&self) -> PathBuf {
        self.0.join("bin/redis-server")
    }

    pub(crate) fn libraries(&self) -> PathBuf {
        self.0.join("lib")
    }

    pub(crate) fn search_module(&self) -> PathBuf {
        self.0.join("lib/redisearch.so")
    }
}

/// The installation, created if necessary. `None` if the test is to be skipped; see [`Requirement::Redis`].
pub(crate) fn find() -> Option<Installation> {
    static INSTALLATION: OnceLock<Result<Installation, String>> = OnceLock::new();
    Requirement::Redis.find(|| INSTALLATION.get_or_init(install).clone())
}

fn install() -> Result<Installation, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let installation = root.join("target/redis-stack");
    if installation.is_dir() {
        return Ok(Installation(installation));
    }
    let script = root.join("tools/redis_stack.py");
    let output =
        Command::new("python3").arg(&script).arg("--into").arg(&installation).stdin(Stdio::null()).output();
    let error = match output {
        Ok(output) if output.status.success() => return Ok(Installation(installation)),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("there is no Redis Stack: {} failed: {error}", script.display()))
}
