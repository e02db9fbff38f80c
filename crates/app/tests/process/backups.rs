//! Backups made during writes, compared with the acknowledged writes; and interrupted restores.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::Value;
use testing::stop_on_drop::StopOnDrop;

use crate::{
    ledger::{State, document},
    random::Random,
    server::{Server, agent, send_with},
};

const WRITERS: [&str; 4] = ["north", "east", "south", "west"];
/// Documents per writer.
const DOCUMENTS: u64 = 300;
/// Documents per request.
const BATCH: usize = 20;
const BACKUPS: usize = 6;

/// An acknowledged write: document number, resulting state and sequence number. The response to a deletion has no
/// sequence number.
type Write = (u64, State, Option<u64>);

/// The acknowledged writes of one writer in order. A writer sends one request at a time.
type History = Mutex<Vec<Write>>;

/// Repeats a batch write and a deletion until `stopping` is set.
fn write(name: &str, address: &str, history: &History, stopping: &AtomicBool) {
    let agent = agent();
    let mut random = Random::new(name.len() as u64);
    let mut version = 0;
    while !stopping.load(Ordering::Relaxed) {
        let first = random.below(DOCUMENTS);
        let batch: Vec<(u64, u64)> =
            (version + 1..).take(BATCH).map(|version| ((first + version) % DOCUMENTS, version)).collect();
        version += BATCH as u64;
        let line = |(number, version): &(u64, u64)| {
            format!("{}\n", document(&format!("{name}-{number}"), *number, *version))
        };
        let body: String = batch.iter().map(line).collect();
        let url = format!("{address}/collections/notes/documents");
        let (status, response) = send_with(&agent, "POST", &url, "application/x-ndjson", body).unwrap();
        assert_eq!(status, 200, "{response}");
        let seq = |result: &Value| result["seq"].as_u64().unwrap_or_else(|| panic!("{response}"));
        let seqs = response["results"].as_array().unwrap().iter().map(seq);
        let written =
            batch.iter().zip(seqs).map(|((number, version), seq)| (*number, Some(*version), Some(seq)));
        history.lock().unwrap().extend(written);

        let number = batch[random.below(BATCH as u64) as usize].0;
        let (status, response) =
            send_with(&agent, "DELETE", &format!("{url}/{name}-{number}"), "", String::new()).unwrap();
        assert_eq!(status, 204, "{response}");
        history.lock().unwrap().push((number, None, None));
    }
}

/// The documents that exist after these writes.
fn state_after(writes: &[Write]) -> BTreeMap<u64, u64> {
    let last: BTreeMap<u64, State> = writes.iter().map(|(number, state, _)| (*number, *state)).collect();
    last.into_iter().filter_map(|(number, state)| Some((number, state?))).collect()
}

/// The program with this home directory.
fn nearfield(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("nearfield"));
    command
        .args(args)
        .env("NEARFIELD_HOME", home)
        .env_remove("NEARFIELD_URL")
        .env_remove("NEARFIELD_DATA_DIR");
    command.stdin(Stdio::null());
    command
}

/// Asserts success; returns the standard output.
#[track_caller]
fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Makes a backup by the command line or over HTTP and returns its last sequence number.
fn back_up(home: &Path, address: &str, file: &Path, over_http: bool) -> u64 {
    if over_http {
        let mut response = agent().get(format!("{address}/backup")).call().unwrap();
        assert_eq!(response.status(), 200);
        let mut out = fs::File::create(file).unwrap();
        std::io::copy(&mut response.body_mut().as_reader(), &mut out).unwrap();
    } else {
        stdout(&nearfield(home, &["backup", file.to_str().unwrap()]).output().unwrap());
    }
    let report = stdout(&nearfield(home, &["check", file.to_str().unwrap(), "--json"]).output().unwrap());
    serde_json::from_str::<Value>(&report).unwrap()["last_seq"].as_u64().unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn a_backup_under_load_contains_a_prefix_of_each_writers_history() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::start(home.path());
    server.wait_until_ready();
    server.create_collection();
    let address = server.address();
    let histories: Vec<History> = WRITERS.iter().map(|_| History::default()).collect();
    let lengths =
        || -> Vec<usize> { histories.iter().map(|history| history.lock().unwrap().len()).collect() };
    let stopping = AtomicBool::new(false);
    // Waits until every writer has another acknowledged write.
    let wait_for_all = || {
        let before = lengths();
        while lengths().iter().zip(&before).any(|(now, before)| now <= before) {
            thread::yield_now();
        }
    };
    let backups: Vec<(PathBuf, Vec<usize>, u64)> = thread::scope(|scope| {
        let _stop = StopOnDrop(&stopping);
        for (name, history) in WRITERS.iter().zip(&histories) {
            let (address, stopping) = (&address, &stopping);
            scope.spawn(move || write(name, address, history, stopping));
        }
        let backups = (0..BACKUPS).map(|number| {
            wait_for_all();
            let (file, before) = (home.path().join(format!("backup-{number}")), lengths());
            let last_seq = back_up(home.path(), &address, &file, number % 2 == 0);
            wait_for_all();
            (file, before, last_seq)
        });
        backups.collect()
    });
    server.kill();

    for (file, before, last_seq) in backups {
        let target = tempfile::tempdir().unwrap();
        stdout(&nearfield(target.path(), &["restore", file.to_str().unwrap()]).output().unwrap());
        let mut server = Server::start(target.path());
        server.wait_until_ready();
        let mut found = server.versions();
        let restored = found.len();
        for ((name, history), before) in WRITERS.iter().zip(&histories).zip(before) {
            let history = history.lock().unwrap();
            let prefix = format!("{name}-");
            let own: BTreeMap<u64, u64> = found
                .extract_if(.., |id, _| id.starts_with(&prefix))
                .map(|(id, version)| (id[prefix.len()..].parse().unwrap(), version))
                .collect();
            let is_in_backup = |(_, _, seq): &Write| seq.is_some_and(|seq| seq <= last_seq);
            let included = history.iter().rposition(is_in_backup).map_or(0, |last| last + 1);
            let first_excluded = history.iter().position(|(_, _, seq)| seq.is_some_and(|seq| seq > last_seq));
            let first_excluded = first_excluded.unwrap_or(history.len());
            assert!(included <= first_excluded, "{name}: its sequence numbers are not in order");
            assert!(
                before <= first_excluded,
                "{name}: a write acknowledged before the backup began is missing"
            );
            // A deletion at the boundary may be included or not, unless it was acknowledged before the backup began.
            let lengths: Vec<usize> = (included.max(before)..=first_excluded).collect();
            assert!(
                lengths.iter().any(|length| state_after(&history[..*length]) == own),
                "{name}: the restored documents match none of its first {lengths:?} writes (backup up to change {last_seq})"
            );
        }
        assert!(found.is_empty(), "no writer wrote {found:?}");
        server.kill();
        println!("{}: {restored} documents, up to change {last_seq}", file.file_name().unwrap().display());
    }
    println!("{} writes acknowledged by {} writers", lengths().iter().sum::<usize>(), WRITERS.len());
}

/// Creates a store with these documents and a backup of it; returns the path of the backup.
fn create_backup(home: &Path, numbers: std::ops::Range<u64>) -> PathBuf {
    let mut server = Server::start(home);
    server.wait_until_ready();
    server.create_collection();
    let body: String =
        numbers.map(|number| format!("{}\n", document(&format!("north-{number}"), number, 1))).collect();
    let url = format!("{}/collections/notes/documents", server.address());
    let (status, response) = send_with(&agent(), "POST", &url, "application/x-ndjson", body).unwrap();
    assert_eq!(status, 200, "{response}");
    let file = home.join("backup");
    back_up(home, &server.address(), &file, false);
    server.stop();
    file
}

fn versions(home: &Path) -> BTreeMap<String, u64> {
    let mut server = Server::start(home);
    server.wait_until_ready();
    let versions = server.versions();
    server.stop();
    versions
}

/// Starts a restore from a pipe that delivers only `bytes`, and kills it while it waits for
/// more.
fn restore_killed_after(home: &Path, bytes: &[u8], args: &[&str]) {
    let pipe = home.join("pipe");
    let _ = fs::remove_file(&pipe);
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut restoring =
        nearfield(home, &[&["restore", pipe.to_str().unwrap()], args].concat()).spawn().unwrap();
    let mut sender = fs::File::options().write(true).open(&pipe).unwrap();
    // The write returns when all but the content of the pipe buffer has been read.
    sender.write_all(bytes).unwrap();
    restoring.kill().unwrap();
    restoring.wait().unwrap();
}

#[test]
fn a_killed_or_failed_restore_leaves_existing_data_unchanged() {
    let (source, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = create_backup(source.path(), 0..3000);
    let bytes = fs::read(&backup).unwrap();
    assert!(bytes.len() > 4 << 16, "the backup fits into a pipe buffer");
    let expected = versions(source.path());
    assert_eq!(expected.len(), 3000);
    for part in 1..4 {
        // An empty directory stays empty, and the next restore succeeds.
        let empty = tempfile::tempdir().unwrap();
        restore_killed_after(empty.path(), &bytes[..bytes.len() * part / 4], &[]);
        assert!(!empty.path().join("data/nearfield.redb").exists());
        assert!(empty.path().join("data/nearfield.redb.unfinished").exists(), "the restore had not started");
        stdout(&nearfield(empty.path(), &["restore", backup.to_str().unwrap()]).output().unwrap());
        assert_eq!(versions(empty.path()), expected);
    }

    create_backup(home.path(), 5000..5010);
    let before = versions(home.path());
    assert_eq!(before.len(), 10);
    let truncated = home.path().join("truncated");
    for part in 1..4 {
        let part_of_backup = &bytes[..bytes.len() * part / 4];
        restore_killed_after(home.path(), part_of_backup, &["--replace"]);
        assert_eq!(versions(home.path()), before, "after a kill");
        fs::write(&truncated, part_of_backup).unwrap();
        let failed =
            nearfield(home.path(), &["restore", truncated.to_str().unwrap(), "--replace"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&failed.stderr);
        assert!(failed.status.code() == Some(1) && stderr.contains("truncated"), "{failed:?}");
        assert_eq!(versions(home.path()), before, "after a restore that failed");
    }
    stdout(&nearfield(home.path(), &["restore", backup.to_str().unwrap(), "--replace"]).output().unwrap());
    assert_eq!(versions(home.path()), expected);
}
