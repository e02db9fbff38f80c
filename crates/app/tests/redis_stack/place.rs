//! Where Redis Stack is installed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The directory `tools/redis_stack.py` made.
#[derive(Clone, Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn server(&self) -> PathBuf {
        self.0.join("bin/redis-server")
    }

    pub(super) fn libraries(&self) -> PathBuf {
        self.0.join("lib")
    }

    pub(super) fn search_module(&self) -> PathBuf {
        self.0.join("lib/redisearch.so")
    }
}

/// Where it is, once it is installed. `None`, said loudly, where it cannot be; with
/// `NEARFIELD_REQUIRE_REDIS=1` that is a failure.
pub(super) fn find() -> Option<Place> {
    static FOUND: OnceLock<Result<Place, String>> = OnceLock::new();
    match FOUND.get_or_init(install) {
        Ok(place) => Some(place.clone()),
        Err(words) => {
            assert!(std::env::var("NEARFIELD_REQUIRE_REDIS").as_deref() != Ok("1"), "{words}");
            eprintln!("SKIPPED: {words}");
            None
        }
    }
}

fn install() -> Result<Place, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let place = root.join("target/redis-stack");
    if place.is_dir() {
        return Ok(Place(place));
    }
    let script = root.join("tools/redis_stack.py");
    let done = Command::new("python3").arg(&script).arg("--into").arg(&place).stdin(Stdio::null()).output();
    let why = match done {
        Ok(done) if done.status.success() => return Ok(Place(place)),
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("no Redis Stack: {} failed: {why}", script.display()))
}
