//! A full disk: writes are rejected with a clear error, nothing is lost, and writes succeed once space is free.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ledger::vector,
    server::{Server, get, send},
};

/// Maximum time until a write succeeds after space is freed: ten times the documented limit.
const TIMEOUT: Duration = Duration::from_secs(50);
/// More writes than fit on the disks of these tests.
const WRITES: u64 = 4000;

/// A separate file system of this size; `None` if mounting is not permitted.
struct Mount(PathBuf);

impl Mount {
    fn new(mib: u32) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap().keep();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", dir.to_str().unwrap()])
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mount(dir));
        }
        fs::remove_dir(&dir).unwrap();
        println!("SKIPPED: mounting a file system requires root");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.0.to_str().unwrap()]).status();
        let _ = fs::remove_dir(&self.0);
    }
}

fn write(server: &Server, number: u64) -> (u16, Value) {
    let url = format!("{}/collections/notes/documents/{number}", server.address());
    let text = format!("document {number} ").repeat(2000);
    let document = json!({"text": text, "version": number, "place": vector("full", number)});
    send("PUT", &url, &document).unwrap()
}

/// Writes until the disk is full; returns the number of acknowledged writes.
fn fill(server: &Server, from: u64) -> u64 {
    for number in from..from + WRITES {
        let (status, response) = write(server, number);
        if status != 201 {
            assert_eq!((status, &response["code"]), (507, &json!("insufficient-storage")), "{response}");
            assert_eq!(response["type"], "urn:nearfield:insufficient-storage");
            return number;
        }
    }
    panic!("the disk is not full after {WRITES} writes");
}

/// Asserts that acknowledged documents can be read and found.
fn check(server: &Server, acknowledged: u64) {
    for number in 0..acknowledged {
        let url = format!("{}/collections/notes/documents/{number}?vectors=false", server.address());
        let (status, document) = get(&url).unwrap();
        assert_eq!((status, &document["fields"]["version"]), (200, &json!(number)), "{document}");
    }
    let (_, response) = get(&format!("{}/collections/notes/count", server.address())).unwrap();
    assert_eq!(response["count"], acknowledged);
    let search = json!({"vector": vector("full", 7), "k": 1});
    let url = format!("{}/collections/notes/search", server.address());
    let (status, response) = send("POST", &url, &search).unwrap();
    assert_eq!((status, &response["results"][0]["id"]), (200, &json!("7")), "{response}");
}

/// Twice: fills the disk, checks the documents, frees space and writes again. Returns the number of acknowledged writes.
fn fill_and_recover(server: &Server, free_space: impl Fn()) -> u64 {
    let mut acknowledged = 0;
    for round in 0..2 {
        acknowledged = fill(server, acknowledged);
        assert!(acknowledged > 10, "only {acknowledged} writes succeeded");
        check(server, acknowledged);
        free_space();
        let started = Instant::now();
        while write(server, acknowledged).0 != 201 {
            assert!(started.elapsed() < TIMEOUT, "writes are still rejected after space was freed");
        }
        println!("round {round}: first write {} ms after space was freed", started.elapsed().as_millis());
        acknowledged += 1;
        check(server, acknowledged);
    }
    acknowledged
}

fn run(home: &Path, wrapper: &[&str], reserve_mib: &str, free_space: impl Fn()) {
    let variables = [("NEARFIELD_DISK_RESERVE_MIB", reserve_mib)];
    let mut server = Server::start_with(home, wrapper, &variables);
    server.wait_until_ready();
    server.create_collection();
    let acknowledged = fill_and_recover(&server, free_space);
    server.kill();
    let mut server = Server::start(home);
    server.wait_until_ready();
    check(&server, acknowledged);
    server.stop();
}

#[test]
fn writes_succeed_again_once_a_full_file_system_has_space() {
    let Some(mount) = Mount::new(48) else { return };
    let filler = mount.0.join("filler");
    fs::write(&filler, vec![7; 12 << 20]).unwrap();
    let step = std::cell::Cell::new(0);
    // Each round removes half of the rest.
    let free_space = || {
        step.set(step.get() + 1);
        let left = (12 << 20) >> step.get();
        fs::write(&filler, vec![7; left]).unwrap();
    };
    run(&mount.0, &[], "0", free_space);
}

#[test]
fn keeps_a_reserve_free_on_the_disk() {
    let Some(mount) = Mount::new(96) else { return };
    let filler = mount.0.join("filler");
    fs::write(&filler, vec![7; 16 << 20]).unwrap();
    let free = || fs4::available_space(&mount.0).unwrap();
    let step = std::cell::Cell::new(0);
    let free_space = || {
        assert!(free() > 30 << 20, "{} bytes are left of a reserve of 32 MiB", free());
        step.set(step.get() + 1);
        let left = (16 << 20) >> step.get();
        fs::write(&filler, vec![7; left]).unwrap();
    };
    run(&mount.0, &[], "32", free_space);
}

/// Otherwise acknowledged writes could find no space later and would be lost.
#[test]
fn writes_that_are_not_durable_count_towards_disk_usage() {
    let Some(mount) = Mount::new(64) else { return };
    let variables = [
        ("NEARFIELD_DURABILITY", "none"),
        ("NEARFIELD_DISK_RESERVE_MIB", "1"),
        // Allows all writes to wait in memory.
        ("NEARFIELD_CACHE_MIB", "256"),
    ];
    let mut server = Server::start_with(&mount.0, &[], &variables);
    server.wait_until_ready();
    server.create_collection();
    let acknowledged = fill(&server, 0);
    assert!(acknowledged > 100, "only {acknowledged} writes succeeded");
    check(&server, acknowledged);
    server.stop();
    let log = fs::read_to_string(mount.0.join("log")).unwrap();
    assert!(!log.contains("may be lost"), "{log}");
    let mut server = Server::start(&mount.0);
    server.wait_until_ready();
    check(&server, acknowledged);
    server.stop();
}

#[test]
fn a_file_size_limit_is_treated_as_a_full_disk() {
    let home = tempfile::tempdir().unwrap();
    if !Command::new("prlimit").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: prlimit is not installed");
        return;
    }
    let limit = std::cell::Cell::new(24u64 << 20);
    let variables = [("NEARFIELD_DISK_RESERVE_MIB", "0")];
    let wrapper = ["prlimit", "--fsize=25165824:unlimited"];
    let mut server = Server::start_with(home.path(), &wrapper, &variables);
    server.wait_until_ready();
    server.create_collection();
    let pid = server.pid().to_string();
    let free_space = || {
        limit.set(limit.get() + (32 << 20));
        let size = format!("--fsize={}:unlimited", limit.get());
        assert!(Command::new("prlimit").args(["--pid", &pid, &size]).status().unwrap().success());
    };
    let acknowledged = fill_and_recover(&server, free_space);
    server.kill();
    let mut server = Server::start(home.path());
    server.wait_until_ready();
    check(&server, acknowledged);
    server.stop();
}
